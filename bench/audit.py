"""The audit page of large ledgers: how long it takes to write, its size, and how fast Chromium opens it and decides again.

    python -m bench.audit [--rows 10000 40000 1000000]

Ledgers are made up (seeded), with every statistic of a clip random, which is the worst case for the size. No previews.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from curation.audit_page.page import write_page
from tests.browser import READY, Visit, chromium, visiting
from tests.curation.large_ledgers import made_up_ledger, write_ledger

_MOVES = 12
# From a setting's change to the end of the frame that shows it.
_MOVE = """async ([path, value]) => {
  const field = document.getElementById(path.replace('.', '-'));
  const start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""


def main() -> None:
    """Print one row a size of ledger."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 40_000, 1_000_000])
    sizes = parser.parse_args().rows
    table = Table(
        "rows", "decided in the page", "written in s", "MB", "opened in s", "decided again in ms: median", "most"
    )
    for column in table.columns:
        column.justify = "right"
    with chromium() as browser:
        version = browser.version
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder, visiting(browser) as visit:
                table.add_row(*_measure(Path(folder), rows, visit))
    console = Console()
    console.print(table)
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Chromium {version}")


def _measure(folder: Path, rows: int, visit: Visit) -> tuple[str, ...]:
    root = write_ledger(folder / "set", made_up_ledger(rows), fragment_rows=4096)
    start = time.perf_counter()
    written = write_page(root, folder / "audit.html")
    wrote_s = time.perf_counter() - start
    start = time.perf_counter()
    visit.page.goto((folder / "audit.html").as_uri())
    visit.page.wait_for_selector(READY)
    opened_s = time.perf_counter() - start
    moves_ms = []
    for move in range(_MOVES):
        # A threshold, one that a rule with five of them reads, and one that makes statistics stale.
        path, value = [
            ("motion.max_yaw_deg", 20 + move),
            ("motion.min_head_range_deg", 5 + move),
            ("crop.max_upscale", 1.1 + move / 100),
        ][move % 3]
        moves_ms.append(visit.page.evaluate(_MOVE, [path, str(value)]))
    return (
        f"{rows:,}",
        f"{written.packed:,}",
        f"{wrote_s:.1f}",
        f"{written.bytes / 1e6:.1f}",
        f"{opened_s:.2f}",
        f"{statistics.median(moves_ms):.0f}",
        f"{max(moves_ms):.0f}",
    )


if __name__ == "__main__":
    main()
