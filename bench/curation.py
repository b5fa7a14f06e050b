"""What the engine adds to the work, what the work costs, and what a peer's lesser work costs, on footage of one's own.

    python -m bench.curation [--videos DIR] [--clips 40] [--repeats 2] [--peer PYTHON] [--config FILE] [--set A.B=C]

Without ``--videos`` the demo's footage is used, so that it runs anywhere; every figure depends on the footage.
``bench/README.md`` says what each table means and how to make the environment that ``--peer`` names.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
from rich.console import Console
from rich.table import Table

from curation.adapters.table import FOLDER
from curation.config import CurationConfig
from curation.ingest import ingest
from curation.ledger import Decision, read_ledger
from curation.preflight import PoolSizes, pool_sizes, prepare
from curation.run import Runner
from curation.sources import Clip, open_manifest, write_manifest
from curation.video import VideoError, probe
from curation.workers import FaceStage, FlowStage
from faceloom import config
from faceloom.cluster import connect
from faceloom.engine import Engine
from faceloom.errors import UserError
from faceloom.models import files, model_path
from shards.dataset import DatasetRecord, index_path
from shards.index import read_index
from shards.schema import BASE_LAYER
from shards.writer import write_layer

SPAN_S = 5.0
# RAFT is what takes the time and is the same in both runs: cheap settings show the engine's share at its largest.
CHEAP = ("flow.model=raft-small", "flow.scale=0.25", "flow.iterations=2", "flow.device=cpu", "run.block_clips=8")
VERDICT = ("probe", "census", "landmarks", "motion")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_START_LIMIT_S = 300
PEER_SIZES = (None, 256)
"""Data-Juicer's default (native size), and the shorter side of its recipes."""

# A file or pipe has no width of its own; 80 columns would cut the tables.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of videos (default: the demo's)")
    parser.add_argument("--clips", type=int, default=40, help="clips of a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each engine; 0 for none (default: %(default)s)")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="interpreter of an environment with Data-Juicer")
    parser.add_argument("--config", help="curation config (default: demo without --videos, else the defaults)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one key of the config")
    args = parser.parse_args()

    # Ray gives its workers one thread each; so has everyone else. Set before any process is started.
    os.environ |= dict.fromkeys(ONE_THREAD, "1")
    os.environ |= {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        source = args.config or (None if args.videos else "demo")
        settings = config.load(CurationConfig, source, [*CHEAP, *args.set])
        # A pool whose processes cannot start waits for ever.
        model_path("face_landmarker", "census")
        model_path(settings.flow.model, "flow.model")
        videos = list_videos(args.videos)
        if args.repeats:
            compare_engines(settings, cut(videos, args.clips), args.repeats)
        if args.peer:
            compare_verdicts(settings, videos, args.peer)
        else:
            console.print("no --peer: the comparison with Data-Juicer is left out; bench/README.md says how to have it")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


# --- footage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Video:
    """A readable video, from its first frame to its last ``duration_s`` long."""

    clip: Clip
    width: int
    height: int
    duration_s: float


def list_videos(root: Path | None) -> list[Video]:
    """The readable videos below ``root``, or the demo's; raises :class:`UserError` when there is none."""
    if root is None:
        names = [name for name in files() if name.startswith("demo/")]
        clips = [Clip("bench", name, str(model_path(name, "python -m bench.curation"))) for name in names]
    else:
        with tempfile.TemporaryDirectory(prefix="faceloom-bench-") as folder:
            manifest = Path(folder) / "videos.parquet"
            ingest(FOLDER, root, manifest, name="bench")
            listed = [clip for block in open_manifest(manifest).blocks(1024) for clip in block]
        clips = [clip for clip in listed if clip.duplicate_of is None]
    videos = []
    for clip in clips:
        try:
            probed = probe(clip.path)
        except VideoError as error:
            console.print(f"left out: {error}")
        else:
            videos.append(Video(clip, probed.width, probed.height, probed.duration_s))
    if not videos:
        raise UserError(f"no readable video below {root}; name another folder with --videos")
    total_s = sum(video.duration_s for video in videos)
    console.print(f"footage: {root or 'the demo'}, {len(videos)} videos, {total_s:.0f} s; all figures depend on it")
    return videos


def cut(videos: Sequence[Video], count: int) -> list[Clip]:
    """``count`` clips: consecutive spans of 5 s of each video in turn, from the start again when they run out."""
    spans = [
        [replace(v.clip, t0_s=i * SPAN_S, t1_s=(i + 1) * SPAN_S) for i in range(int(v.duration_s / SPAN_S))] or [v.clip]
        for v in videos
    ]
    each = [clip for row in itertools.zip_longest(*spans) for clip in row if clip is not None]
    # The round is part of the key: a repeated span is a clip of its own, and costs what it cost before.
    return [
        replace(clip, source_key=f"{i // len(each)}/{clip.source_key}")
        for i, clip in zip(range(count), itertools.cycle(each), strict=False)
    ]


# --- the Ray run against a bare pool ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Wall seconds until every worker had its models, and from there to the last shard."""

    start_up_s: float
    work_s: float


class ReadyRunner(Runner):
    """The product's runner, which begins its work only when all its workers have loaded their models."""

    ready_at: float

    def engine(self) -> Engine[Clip, Decision]:
        """Waits until they have."""
        engine = super().engine()
        starting = engine.start()
        ray.wait(starting, num_returns=len(starting))
        self.ready_at = time.perf_counter()
        return engine


def ray_run(settings: CurationConfig, manifest: Path, out: Path) -> tuple[Timing, PoolSizes]:
    """One run of the product on a Ray of its own."""
    began = time.perf_counter()
    sizes = pool_sizes(settings.run, connect(None))
    try:
        runner = ReadyRunner(prepare(settings, manifest, out), sizes, lambda _progress: None)
        runner.run()
        ended = time.perf_counter()
    finally:
        ray.shutdown()
    return Timing(runner.ready_at - began, ended - runner.ready_at), sizes


def pool_run(settings: CurationConfig, manifest: Path, out: Path, processes: int) -> Timing:
    """The same stages, clip by clip, in a bare pool of processes; this one writes the shards as the samples come."""
    blocks = list(open_manifest(manifest).blocks(settings.run.block_clips))
    context = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    ready = context.Barrier(processes + 1)
    with context.Pool(processes, _load_stages, (settings, ready)) as pool:
        ready.wait(_START_LIMIT_S)
        started = time.perf_counter()
        results = pool.imap(_decide_and_finish, itertools.chain(*blocks))
        for part, block in enumerate(blocks):
            decided = itertools.chain.from_iterable(itertools.islice(results, len(block)))
            write_layer(
                out, part, BASE_LAYER, ((d.clip.clip_id, fields) for d, fields in decided if fields is not None)
            )
        ended = time.perf_counter()
    return Timing(started - began, ended - started)


def _silence() -> None:
    """Nothing on this process's standard error: MediaPipe and x264 write there for every clip. Errors are returned."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


# What a process of the bare pool keeps between clips.
_stages: tuple[FaceStage, FlowStage]


def _load_stages(settings: CurationConfig, ready: Barrier) -> None:
    global _stages
    _silence()
    _stages = FaceStage(settings), FlowStage(settings)
    ready.wait()


def _decide_and_finish(clip: Clip) -> list[tuple[Decision, Mapping[str, bytes] | None]]:
    face, flow = _stages
    return [
        (decision, None) if draft is None else flow.finish(decision, draft) for decision, draft in face.decide(clip)
    ]


def compare_engines(settings: CurationConfig, clips: Sequence[Clip], repeats: int) -> None:
    """Time both engines in turn, ``repeats`` times each; print their ratio, and what the last Ray run spent where."""
    timings: dict[str, list[Timing]] = {"Ray": [], "bare pool": []}
    # What Ray will see; a container's share of the machine included.
    processes = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="faceloom-bench-") as name:
        folder = Path(name)
        manifest = folder / "manifest.parquet"
        write_manifest(clips, manifest)
        for i in range(repeats):
            by_ray, by_pool = folder / f"ray-{i}", folder / f"pool-{i}"
            # Who goes first alternates, so that neither has the warm file cache or the busy minute to itself.
            for engine in ("Ray", "bare pool") if i % 2 == 0 else ("bare pool", "Ray"):
                if engine == "Ray":
                    timing, sizes = ray_run(settings, manifest, by_ray)
                else:
                    timing = pool_run(settings, manifest, by_pool, processes)
                timings[engine].append(timing)
                console.print(f"run {i + 1} of {repeats}, {engine}: {timing.start_up_s:.1f} s + {timing.work_s:.1f} s")
            _refuse_unequal(by_ray, by_pool)
        _print_engines(
            timings, clips, settings, sizes, processes, read_ledger(by_ray, ["outcome"])["outcome"].to_pylist()
        )
        _print_stages(by_ray)


def _refuse_unequal(by_ray: Path, by_pool: Path) -> None:
    """Both must have made the same bytes, or their times say nothing."""
    for shard in DatasetRecord.load(by_ray).shards:
        ours, bare = (
            {entry.member: entry.crc32c for entry in read_index(index_path(folder, shard.part, BASE_LAYER)).entries}
            for folder in (by_ray, by_pool)
        )
        differing = sorted(name for name in {*ours, *bare} if ours.get(name) != bare.get(name))
        if differing:
            raise SystemExit(
                f"{shard.file} differs between the Ray run ({len(ours)} members) and the bare pool ({len(bare)}), from "
                f"{differing[0]} on: their times do not compare. Did the code change meanwhile?"
            )


def _print_engines(
    timings: Mapping[str, Sequence[Timing]],
    clips: Sequence[Clip],
    settings: CurationConfig,
    sizes: PoolSizes,
    processes: int,
    outcomes: Sequence[str],
) -> None:
    flow = settings.flow
    counts = ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes).most_common())
    table = Table(
        "engine", "workers", "start-up s", "work s", "clips/min", title="The engine", title_justify="left", box=None
    )
    workers = {"Ray": f"{sizes.face} face + {sizes.flow} flow", "bare pool": f"{processes} processes"}
    for engine, runs in timings.items():
        work_s = statistics.median(run.work_s for run in runs)
        start_up_s = statistics.median(run.start_up_s for run in runs)
        table.add_row(engine, workers[engine], f"{start_up_s:.1f}", f"{work_s:.1f}", f"{60 * len(clips) / work_s:.1f}")
    pairs = list(zip(timings["Ray"], timings["bare pool"], strict=True))
    ratios = [ours.work_s / bare.work_s for ours, bare in pairs]
    whole = [(r.start_up_s + r.work_s) / (b.start_up_s + b.work_s) for r, b in pairs]
    console.print(table)
    console.print(
        f"Ray / bare pool: {statistics.median(ratios):.3f}, median of {len(ratios)} "
        f"({', '.join(f'{ratio:.3f}' for ratio in ratios)}); with start-up {statistics.median(whole):.3f}\n"
        f"{len(clips)} clips ({counts}), equal bytes; {flow.model}, scale {flow.scale}, {flow.iterations} iterations, "
        f"{settings.run.block_clips} clips a shard\n"
    )


def _print_stages(dataset: Path) -> None:
    ledger = read_ledger(dataset, ["clip_id", "of_clip", "duration_s"]).to_pylist()
    length_s = {row["clip_id"]: row["duration_s"] or 0.0 for row in ledger if row["of_clip"] is None}
    # What a further window cost is of the clip that it is of.
    clip_of = {row["clip_id"]: row["of_clip"] or row["clip_id"] for row in ledger}
    spent: dict[str, dict[str, float]] = {}
    for fragment in sorted((dataset / "telemetry").glob("*.parquet")):
        for row in pq.read_table(fragment).to_pylist():
            of_stage, clip_id = spent.setdefault(row["stage"], {}), clip_of[row["clip_id"]]
            of_stage[clip_id] = of_stage.get(clip_id, 0.0) + row["cpu_s"]
    total_s = sum(sum(stage.values()) for stage in spent.values())
    table = Table(
        "stage",
        "clips",
        "CPU-s a clip",
        "CPU-s a clip-second",
        "share",
        title="The stages, in the Ray run",
        box=None,
        title_justify="left",
    )
    for stage, by_clip in spent.items():
        seconds = sum(by_clip.values())
        reached_s = sum(length_s[clip_id] for clip_id in by_clip)
        table.add_row(*_cost(stage, len(by_clip), seconds, reached_s), f"{seconds / total_s:.0%}")
    table.add_section()
    table.add_row(*_cost("all", len(length_s), total_s, sum(length_s.values())), "100%")
    console.print(table)
    console.print("a stage's figures are of the clips that reached it\n")


def _cost(stage: str, clips: int, seconds: float, length_s: float) -> list[str]:
    return [stage, str(clips), f"{seconds / clips:.2f}", f"{seconds / length_s:.3f}" if length_s else ""]


# --- a full verdict against Data-Juicer's motion score ---------------------------------------------------------------


@contextmanager
def peer_process(python: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """What the peer says of itself, and a function that has it score one video at one size: CPU seconds."""
    script = Path(__file__).with_name("data_juicer_motion.py")
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def hear() -> dict[str, Any]:
            line = answers.readline()
            if not line:
                complaints.seek(0)
                last = "".join(complaints.readlines()[-5:])
                raise UserError(f"{python} {script.name} ended; bench/README.md says what it needs:\n{last}")
            content: dict[str, Any] = json.loads(line)
            return content

        def score(path: str, size: int | None) -> float:
            print(json.dumps({"path": path, "size": size}), file=questions, flush=True)
            return float(hear()["cpu_s"])

        try:
            yield hear(), score
        finally:
            questions.close()
            process.wait()


_face: FaceStage


def _load_face(settings: CurationConfig) -> None:
    global _face
    _silence()
    _face = FaceStage(settings, all_statistics=True)


def _verdict(clip: Clip) -> Decision:
    return _face.decide(clip)[0][0]


def compare_verdicts(settings: CurationConfig, videos: Sequence[Video], python: Path) -> None:
    """CPU seconds to every statistic of a verdict, and to Data-Juicer's motion score, of whole videos in turn."""
    if not python.is_file():
        raise UserError(f"--peer {python} does not exist; bench/README.md says how to make that environment")
    rows: list[tuple[Video, Decision, float, list[float]]] = []
    with (
        peer_process(python.absolute()) as (peer, score),
        multiprocessing.get_context("spawn").Pool(1, _load_face, (settings,)) as pool,
    ):
        # The first call of each pays for what is loaded late; it is not counted.
        shortest = min(videos, key=lambda video: video.duration_s * video.width * video.height).clip
        pool.apply(_verdict, (shortest,))
        for size in PEER_SIZES:
            score(shortest.path, size)
        for video in videos:
            decision = pool.apply(_verdict, (video.clip,))
            ours_s = sum(decision.cpu_s.get(stage, 0.0) for stage in VERDICT)
            rows.append((video, decision, ours_s, [score(video.clip.path, size) for size in PEER_SIZES]))
    _print_verdicts(rows, peer)


def _print_verdicts(rows: Sequence[tuple[Video, Decision, float, list[float]]], peer: Mapping[str, Any]) -> None:
    table = Table(
        "video",
        "px",
        "s",
        "verdict",
        "ours",
        "peer native",
        "ratio",
        "peer 256",
        "ratio",
        box=None,
        title="CPU-seconds to a full verdict, and to Data-Juicer's motion score",
        title_justify="left",
    )
    full = [row for row in rows if "motion" in row[1].wall_s]
    for video, decision, ours_s, (native_s, small_s) in rows:
        outcome = decision.outcome
        verdict = getattr(outcome, "rule", None) or getattr(outcome, "error", None) or "passes"
        table.add_row(
            video.clip.source_key, f"{video.width}×{video.height}", f"{video.duration_s:.1f}",
            verdict if "motion" in decision.wall_s else f"({verdict})",
            f"{ours_s:.2f}", f"{native_s:.2f}", f"{ours_s / native_s:.2f}", f"{small_s:.2f}", f"{ours_s / small_s:.2f}",
        )  # fmt: skip
    console.print(table)
    for label, column in (("native", 0), ("256", 1)):
        if full:
            sums = sum(row[2] for row in full) / sum(row[3][column] for row in full)
            median = statistics.median(row[2] / row[3][column] for row in full)
            console.print(f"ours / peer {label}: {sums:.3f} of the sums, {median:.3f} median, {len(full)} videos")
    console.print(
        f"Data-Juicer {peer['data_juicer']} VideoMotionScoreFilter, 2 fps, OpenCV {peer['opencv']}; one thread each; "
        "in brackets: no face to follow, verdict not full, not in the ratios"
    )


if __name__ == "__main__":
    main()
