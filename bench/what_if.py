"""What re-deciding a large ledger costs, and reading it, by the rows that a fragment has.

    python -m bench.what_if [--rows 1000000] [--fragment-rows 256 4096]

The ledger is made up (seeded). *again* is what a change of one threshold costs once the ledger is in memory, *with a crop*
one that also makes statistics stale; *command* is the whole `faceloom what-if`, from the shell and back.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from curation.config import CurationConfig
from curation.ledger import read_ledger
from curation.what_if import ledger_columns, what_if
from tests.curation.large_ledgers import made_up_ledger, write_ledger

_REPEATS = 5


def main() -> None:
    """Print one row a size of fragment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--fragment-rows", type=int, nargs="+", default=[256, 4096])
    arguments = parser.parse_args()
    table = Table("rows a fragment", "read in s", "again in s", "with a crop in s", "command in s")
    for column in table.columns:
        column.justify = "right"
    ledger = made_up_ledger(arguments.rows)
    for rows in arguments.fragment_rows:
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(str(rows), *_measure(write_ledger(Path(folder) / "set", ledger, fragment_rows=rows)))
    console = Console()
    console.print(table)
    console.print(f"{arguments.rows:,} rows; {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")


def _measure(root: Path) -> tuple[str, ...]:
    was = CurationConfig()
    stricter = CurationConfig.model_validate({"motion": {"max_yaw_deg": 35}})
    cropped = CurationConfig.model_validate({"crop": {"max_upscale": 1.2}})

    def decide(config: CurationConfig) -> None:
        result = what_if(ledger, was, config)
        result.funnel(result.now)
        result.moves()

    ledger = read_ledger(root, ledger_columns())
    command = [sys.executable, "-m", "faceloom", "what-if", str(root), "--set", "motion.max_yaw_deg=35", "--json"]
    return (
        f"{_seconds(lambda: read_ledger(root, ledger_columns())):.2f}",
        f"{_seconds(lambda: decide(stricter)):.2f}",
        f"{_seconds(lambda: decide(cropped)):.2f}",
        f"{_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)):.2f}",
    )


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
