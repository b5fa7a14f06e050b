"""The audit page: one self-contained HTML file that shows a ledger and re-decides it in the reader's browser."""
