"""What a curation run shows before and after it: its plan, and tables of outcomes."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.ledger import manifest_rows
from curation.preflight import Plan, PoolSizes


def plan_table(plan: Plan, resources: Mapping[str, float], sizes: PoolSizes) -> Table:
    """The plan of a run, as ``--plan`` prints it: ``resources`` are the cluster's, ``sizes`` the pools it gives."""
    table = Table(title="plan", show_header=False, title_justify="left")
    manifest = plan.record.manifest
    for name, value in {
        "manifest": f"{plan.manifest.path} ({plan.manifest.clips} clips)",
        "clips": f"{manifest.clips} in {manifest.blocks} blocks of {manifest.block_clips}",
        "done": f"{len(plan.done)} blocks",
        "to do": f"{plan.blocks_left} blocks",
        "output": str(plan.out),
        "cluster": f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU",
        "workers": f"{sizes.face} face, {sizes.flow} flow",
        "flow": f"{plan.config.flow.model}, scale {plan.config.flow.scale:g}, {plan.config.flow.iterations} iterations",
        "face tokens": plan.config.face.encoder,
        "crop": plan.config.crop.mode,
        "windows": f"up to {plan.config.window.most} a clip",
        "all statistics": "yes" if plan.all_statistics else "no",
        "run": plan.record.config_fingerprint,
    }.items():
        table.add_row(name, Text(value))
    return table


def outcome_counts(ledger: pa.Table) -> list[tuple[str, str, int]]:
    """``(outcome, rule or error, rows)``, largest first within kept, rejected, failed, unknown."""
    because = pc.fill_null(pc.coalesce(ledger["rule"], ledger["error"]), "")
    table = pa.table({"outcome": ledger["outcome"], "because": because})
    counts = table.group_by(["outcome", "because"]).aggregate([("outcome", "count")]).to_pylist()
    order = {"kept": 0, "rejected": 1, "failed": 2, "unknown": 3}
    rows = [(row["outcome"], row["because"], row["outcome_count"]) for row in counts]
    return sorted(rows, key=lambda row: (order[row[0]], -row[2], row[1]))


def outcome_table(ledger: pa.Table) -> Table:
    """How many clips met which outcome, by rule and by error, and how many further windows of them."""
    clips, rows = outcome_counts(manifest_rows(ledger)), outcome_counts(ledger)
    of_manifest = {(outcome, because): count for outcome, because, count in clips}
    table = Table(title="outcomes", title_justify="left")
    for column in ("outcome", "rule or error"):
        table.add_column(column)
    further = len(ledger) > sum(of_manifest.values())
    for column in ("clips", "further windows") if further else ("clips",):
        table.add_column(column, justify="right")
    for outcome, because, count in rows:
        own = of_manifest.get((outcome, because), 0)
        table.add_row(outcome, Text(because), str(own), *([str(count - own)] if further else []))
    return table


def print_clips(ledger: pa.Table, console: Console) -> None:
    """Every clip and further window with its outcome, then every failure in full: for datasets small enough to read."""
    table = Table(title="clips", title_justify="left")
    for column in ("source", "outcome", "rule or error"):
        table.add_column(column, overflow="fold")
    for column in ("value", "threshold"):
        table.add_column(column, justify="right")
    rows = ledger.to_pylist()
    for row in rows:
        numbers = ["" if row[name] is None else f"{row[name]:.4g}" for name in ("value", "threshold")]
        table.add_row(Text(_source(row)), row["outcome"], Text(row["rule"] or row["error"] or ""), *numbers)
    console.print(table)
    for row in rows:
        if row["outcome"] == "failed":
            text = f"failed in {row['stage']}: {_source(row)}: {row['message']}"
            console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _source(row: Mapping[str, Any]) -> str:
    """A clip's source key; of a further window, with its number and span."""
    if row.get("of_clip") is None:
        return str(row["source_key"])
    return f"{row['source_key']}, window {row['window']}, {row['t0_s']:.2f} to {row['t1_s']:.2f} s"
