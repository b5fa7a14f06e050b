"""What the driver of a run costs when its workers do nothing: clips a second, and its memory over manifests of any length.

    python -m bench.scheduling [--clips 10000 100000] [--workers 4] [--json FILE]

The true runner on a true Ray, with its blocks, ledger fragments and shards. The workers decide every clip at once, without a
look at it: one in ten fails in the flow stage, after it has been through both pools, the others are rejected. Each manifest
has a driver of its own. Measured are clips a second between the first and the last block, and the driver's own CPU time; its
resident memory when the first block is done, the largest of a hundred looks, the last, and that after the seal.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import ray
from rich.console import Console
from rich.table import Table

from curation import run
from curation.config import CurationConfig
from curation.drafts import Draft
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Rejected
from curation.preflight import pool_sizes, prepare
from curation.sources import Clip, record_batches, write_batches
from curation.workers import FaceStage, FlowStage
from faceloom.cluster import connect
from faceloom.memory import resident_mib
from faceloom.progress import Progress


class _FaceStage(FaceStage):
    """Nine of ten clips are rejected."""

    def __init__(self, config: CurationConfig, _all_statistics: bool = False) -> None:
        self._config = config

    def allowance_s(self, clip: Clip) -> float:  # noqa: ARG002
        return 0.0

    def decide(self, clip: Clip) -> list[tuple[Decision, Draft | None]]:
        if int(clip.source_key[-1]):
            return [(Decision(clip, Rejected("too_short", 1.0, 2.67), {"duration_s": 1.0}), None)]
        return [(Decision(clip, Kept(), {"duration_s": 9.0}), None)]


class _FlowStage(FlowStage):
    """What comes here has failed, for a sample of true size would measure the disk."""

    def __init__(self, config: CurationConfig) -> None:
        self._config = config

    def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:  # noqa: ARG002
        return Decision(decision.clip, Failed("flow", "TruncatedVideoError", "no-op"), decision.statistics), None


@dataclass(frozen=True)
class Measured:
    """One driver."""

    clips: int
    clips_per_s: float
    cpu_ms_per_clip: float
    preflight_s: float
    first_mib: float
    largest_mib: float
    last_mib: float
    sealed_mib: float


def main() -> None:
    """Print one row a manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2, help="of each pool")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measured = []
    context = multiprocessing.get_context("spawn")
    for clips in arguments.clips:
        with tempfile.TemporaryDirectory() as folder:
            _write_manifest(Path(folder), clips)
            with context.Pool(1) as pool:
                measured.append(pool.apply(_drive, (Path(folder), arguments.workers)))
    columns = ("clips", "clips/s", "driver CPU ms/clip", "preflight s", "MiB, first block", "largest", "last", "sealed")
    table = Table(*columns)
    for one in measured:
        table.add_row(
            f"{one.clips:,}",
            *(f"{one.clips_per_s:.0f}", f"{one.cpu_ms_per_clip:.2f}", f"{one.preflight_s:.1f}"),
            *(f"{mib:.0f}" for mib in (one.first_mib, one.largest_mib, one.last_mib, one.sealed_mib)),
        )
    console = Console()
    console.print(table)
    console.print(
        f"{arguments.workers} workers a pool; {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in measured], indent=1))


def _write_manifest(folder: Path, clips: int) -> None:
    video = folder / "video.mp4"
    video.touch()

    def rows() -> Iterator[Clip]:
        for number in range(clips):
            yield Clip("made up", f"folder/of/sources/{number:09d}", str(video), licence="none")

    batches: Iterator[pa.RecordBatch] = record_batches(rows())
    write_batches(batches, folder / "manifest.parquet")


def _drive(folder: Path, workers: int) -> Measured:
    # By the name under which a worker finds them; here they are those of __main__.
    stages = importlib.import_module("bench.scheduling")
    run.FaceWorker, run.FlowWorker = ray.remote(stages._FaceStage), ray.remote(stages._FlowStage)
    sizes = {"workers": workers, "cpus": 0.1, "recycle_clips": 10**9}
    settings = CurationConfig.model_validate({"run": {"face": sizes, "flow": sizes}})
    began = time.perf_counter()
    plan = prepare(settings, folder / "manifest.parquet", folder / "dataset")
    preflight_s = time.perf_counter() - began
    resources = connect("local")
    clips, block = plan.record.manifest.clips, settings.run.block_clips
    seen: list[tuple[int, float, float, float]] = []

    def look(progress: Progress) -> None:
        if progress.decided >= block and (not seen or progress.decided - seen[-1][0] >= clips / 100):
            seen.append((progress.decided, time.perf_counter(), time.process_time(), resident_mib()))

    progress = run.Runner(plan, pool_sizes(settings.run, resources), look).run()
    assert progress.decided == clips, progress
    (first, began, cpu, first_mib), (last, ended, cpu_end, last_mib) = seen[0], seen[-1]
    measured = Measured(
        clips,
        (last - first) / (ended - began),
        (cpu_end - cpu) / (last - first) * 1000,
        preflight_s,
        first_mib,
        max(mib for *_, mib in seen),
        last_mib,
        resident_mib(),
    )
    ray.shutdown()
    return measured


if __name__ == "__main__":
    main()
