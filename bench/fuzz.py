"""A thousand damaged and hostile files through the true engine and the true face stage: does each get an outcome?

    python -m bench.fuzz [--files 1020] [--seed 0] [--workers 2] [--json FILE] [--keep FOLDER]

Files are made by :mod:`bench.mutations` from the demo's videos (:mod:`bench.fuzz_files`), every kind from every container in
turn. Each twentieth clip is the man unharmed, and must be kept: a neighbour that is lost would be somebody's footage. Workers
have a deadline and a limit of memory, as in any run. The flow stage is left out: what reaches it is a video of our own
making. Prints outcomes by kind of damage, and by name what was killed or failed otherwise than as a bad file. Exits 1 if a
clip has no outcome, a neighbour is lost, or a worker had more memory than its limit and a quarter.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console
from rich.table import Table

from bench.fuzz_files import MAN, base_files
from bench.mutations import KINDS, mutate
from curation import run
from curation.config import CurationConfig
from curation.drafts import Draft
from curation.ledger import Decision, read_ledger
from curation.outcome import Rejected
from curation.preflight import pool_sizes, prepare
from curation.sources import Clip, write_manifest
from curation.video import VideoError
from curation.workers import FlowStage
from faceloom import config
from faceloom.cluster import connect

DEADLINE_S, MEMORY_MIB = 60.0, 1536
SETTINGS = (
    *("window.min_frames=12", "census.tiles=1", "census.fps=1", "sample_video.preset=ultrafast", "crop.max_upscale=8"),
    *(f"run.face.deadline_s={DEADLINE_S}", f"run.face.memory_mib={MEMORY_MIB}", "run.block_clips=64"),
    *("run.flow.workers=1", "run.flow.cpus=0.1"),
)
"""So that a clip of a second and a half can be kept, at a cost that lets a thousand be tried."""
_NEIGHBOUR = "neighbour"
_EVERY = 20
_LOST = ("WorkerDied", "DeadlineExceeded", "MemoryLimitError")
_BAD_FILES = {kind.__name__ for kind in VideoError.__subclasses__()}


class _NoFlow(FlowStage):
    """What the face stage passed is done."""

    def __init__(self, _config: CurationConfig) -> None: ...

    def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:  # noqa: ARG002
        return Decision(decision.clip, Rejected("passed", 1.0, 1.0), decision.statistics), None


def main() -> None:
    """Run, print, and exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60 * len(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="an absent or empty folder for the files and the ledger")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        (folder / "files").mkdir(parents=True)
        write_manifest(_clips(folder / "files", arguments.files, arguments.seed), folder / "manifest.parquet")
        began = time.monotonic()
        progress, largest_mib = curate(folder, arguments.workers)
        rows = read_ledger(folder / "dataset").to_pylist()
    promised = arguments.files + -(-arguments.files // _EVERY)
    lost = [row["source_key"] for row in rows if row["source_key"].startswith(_NEIGHBOUR) and row["rule"] != "passed"]
    console = Console(width=140)
    console.print(_table(rows))
    for row in rows:
        if row["outcome"] == "failed" and row["error"] not in _BAD_FILES:
            console.print(f"{row['source_key']}: {row['error']} in {row['stage']}: {row['message']}", highlight=False)
    summary = {
        "files": arguments.files,
        "clips": promised,
        "outcomes": len(rows),
        "neighbours lost": lost,
        "workers lost": dict(progress.losses),
        "largest worker MiB": round(largest_mib),
        "seconds": round(time.monotonic() - began),
    }
    console.print(summary)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary | {"by kind": _by_kind(rows)}, indent=1))
    sys.exit(len(rows) != promised or bool(lost) or largest_mib > 1.25 * MEMORY_MIB)


def _clips(folder: Path, count: int, seed: int) -> Iterator[Clip]:
    files = base_files()
    names = sorted(files)
    for number in range(count):
        if number % _EVERY == 0:
            path = folder / f"neighbour-{number}.mp4"
            path.write_bytes(files[MAN])
            yield Clip("fuzz", f"{_NEIGHBOUR}/{number}", str(path))
        kind, name = KINDS[number % len(KINDS)], names[number // len(KINDS) % len(names)]
        path = folder / f"{number}-{name}"
        path.write_bytes(mutate(kind, files, name, seed * count + number))
        yield Clip("fuzz", f"{kind}/{name}/{seed * count + number}", str(path))


def curate(folder: Path, workers: int) -> tuple[Any, float]:
    """Decide ``folder/manifest.parquet`` into ``folder/dataset``; the progress, and the largest worker seen, in MiB."""
    run.FlowWorker = ray.remote(_NoFlow)
    settings = config.load(CurationConfig, "demo", [*SETTINGS, f"run.face.workers={workers}"])
    plan = prepare(settings, folder / "manifest.parquet", folder / "dataset")
    resources = connect("local")
    largest, done = [0.0], threading.Event()
    threading.Thread(target=_watch, args=(largest, done), daemon=True).start()
    try:
        progress = run.Runner(plan, pool_sizes(settings.run, resources), lambda _progress: None).run()
    finally:
        done.set()
        ray.shutdown()
    return progress, largest[0]


def _watch(largest: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        for process in psutil.Process().children(recursive=True):
            try:
                if "FaceStage" in " ".join(process.cmdline()):
                    largest[0] = max(largest[0], process.memory_info().rss / 2**20)
            except psutil.Error:
                continue


def _by_kind(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["rule"] == "passed":
            outcome = "kept"
        elif row["outcome"] == "failed" and row["error"] not in _LOST:
            outcome = row["error"] if row["error"] in _BAD_FILES else "failed otherwise"
        else:
            outcome = "rejected" if row["rule"] else f"killed: {row['error']}"
        kinds[row["source_key"].partition("/")[0]][outcome] += 1
    return {kind: dict(counts) for kind, counts in kinds.items()}


def _table(rows: list[dict[str, Any]]) -> Table:
    kinds = _by_kind(rows)
    columns = sorted({outcome for counts in kinds.values() for outcome in counts})
    table = Table("kind", "files", *(column.removesuffix("Error") for column in columns))
    for kind, counts in sorted(kinds.items()):
        table.add_row(kind, str(sum(counts.values())), *(str(counts.get(column, "")) for column in columns))
    return table


if __name__ == "__main__":
    main()
