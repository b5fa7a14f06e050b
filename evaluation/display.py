"""What ``faceloom evaluate`` prints."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Mean, coverage and number of videos of every metric that has a value."""
    table = Table("metric", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for name in ("mean", "unit", "ideal", "coverage", "videos"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for name, metric in summary["metrics"].items():
        if metric["mean"] is not None:
            arrow = "↓" if metric["better"] == "lower" else "↑"
            ideal = arrow if metric["ideal"] is None else f"{metric['ideal']:g} {arrow}"
            coverage = "" if metric["coverage"] is None else f"{metric['coverage']:.0%}"
            videos = f"{metric['videos']}/{summary['videos']}"
            table.add_row(name, f"{metric['mean']:.4g}", metric["unit"], ideal, coverage, videos)
    return table


def absent_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line for each reason why metrics have no value."""
    by_reason: dict[str, list[str]] = {}
    for name, metric in summary["metrics"].items():
        if metric["mean"] is None:
            by_reason.setdefault(metric["reason"] or "no video has a value that counts", []).append(name)
    return [f"absent: {', '.join(names)}: {reason}" for reason, names in by_reason.items()]
