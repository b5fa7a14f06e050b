"""Five clips of 200 that kill, hang, swell or cannot be read: what is left of a run?

    python -m bench.survival [--videos DIR] [--clips 200] [--peers DIR] [--only NAME …] [--limit 600] [--json FILE]

Each contender gets the same manifest of spans of real footage and the same work a clip, the product's face stage up to the
census of faces, in two workers. Over one clip the worker segfaults, over one it waits for ever, over one it allocates until
it is killed (at 3 GiB, by itself, so that the machine survives every contender); one file is cut short, one is empty.
The size of faces that is asked for is set so high that the census rejects every other clip: nothing more is done with any.

A clip is *lost* if the contender has no outcome for it, or one that blames it. Poison is *named* if there is an outcome that
says where it failed and why. ``--peers`` is a folder of environments: ``bench/README.md`` says how to make them.
Exits 1 unless ours finishes, loses none and names all five.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.curation import Video, list_videos
from bench.reader import machine
from bench.survivors.work import EMPTY, POISON, TRUNCATED, WORKERS, Job
from bench.witness import calls
from curation.config import CurationConfig
from curation.sources import Clip, open_manifest, write_manifest
from faceloom import config
from faceloom.errors import UserError
from tests.e2e.command import kill_all, kill_with_descendants

SPAN_S = 3.0
DEADLINE_S = 45
SETTINGS = (
    *("character.min_face_px=10000", "flow.model=raft-small"),
    *(f"run.face.workers={WORKERS}", "run.flow.workers=1", "run.block_clips=20"),
    *(f"run.face.deadline_s={DEADLINE_S}", "run.face.deadline_s_per_gigapixel=0"),
    "run.face.memory_mib=2048",
)
_ROOT = Path(__file__).parents[1]

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@dataclass(frozen=True)
class Contender:
    """An engine with its settings. ``environment`` is a folder below ``--peers``; None is ours."""

    name: str
    module: str
    variant: str
    environment: str | None = None


CONTENDERS = (
    Contender("faceloom", "with_faceloom", "product"),
    Contender("ray-data", "with_ray_data", "defaults"),
    Contender("ray-data bounded", "with_ray_data", "bounded"),
    Contender("ray-data watchdog", "with_ray_data", "watchdog"),
    Contender("xenna", "with_xenna", "defaults", "xenna"),
    Contender("xenna watchdog", "with_xenna", "watchdog", "xenna"),
)


@dataclass(frozen=True)
class Survival:
    """What a contender made of it."""

    contender: str
    ended: str
    """``finished``, or how it ended otherwise."""
    decided: int
    lost: list[str]
    """Innocents without an outcome, or with one that blames them."""
    repeated: list[str]
    """Clips with two outcomes."""
    named: dict[str, str]
    """Stage and cause of each poison that has an outcome."""
    attempts: dict[str, int]
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether nothing is left to wish for."""
        return self.ended == "finished" and not self.lost and not self.repeated and {*self.named} == {*POISON}


def made_manifest(folder: Path, videos: Sequence[Video], count: int) -> Path:
    """``count`` clips: consecutive spans of the videos in turn, from the start again when they run out; five are poison."""
    cut_short, empty = folder / "cut_short.mp4", folder / "empty.mp4"
    whole = Path(videos[0].clip.path).read_bytes()
    cut_short.write_bytes(whole[: len(whole) * 6 // 10])
    empty.touch()
    files = {TRUNCATED: cut_short, EMPTY: empty}
    every = count // len(POISON)
    clips = []
    for i, span in zip(range(count), _spans(videos), strict=False):
        number, place = divmod(i, every)
        if place == every // 2 and number < len(POISON):
            key = POISON[number]
            clips.append(Clip("survival", key, str(files[key])) if key in files else replace(span, source_key=key))
        else:
            clips.append(replace(span, source_key=f"innocent-{i:03}"))
    write_manifest(clips, folder / "manifest.parquet")
    return folder / "manifest.parquet"


def _spans(videos: Sequence[Video]) -> Iterator[Clip]:
    while True:
        for video in videos:
            for i in range(max(1, int(video.duration_s / SPAN_S))):
                yield replace(video.clip, t0_s=i * SPAN_S, t1_s=min(video.duration_s, (i + 1) * SPAN_S))


def survive(contender: Contender, python: str, job: Job, folder: Path, limit_s: float) -> Survival:
    """Let a contender do the job; it is stopped after ``limit_s``."""
    job.notes.mkdir()
    job.results.touch()
    job.save(folder / "job.json")
    began = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", f"bench.survivors.{contender.module}", str(folder / "job.json")],
            cwd=_ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
            last = [line for line in (folder / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
            ended = "finished" if code == 0 else f"exit code {code}: {last[-1] if last else ''}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit_s:.0f} s"
        seconds = time.monotonic() - began
        kill_with_descendants(psutil.Process(process.pid)) if process.poll() is None else None
        kill_all([other for other in psutil.process_iter() if _in_session(other, process.pid)])
        process.wait()
    return _survival(contender, job, ended, seconds)


def _in_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session
    except ProcessLookupError:
        return False


def _survival(contender: Contender, job: Job, ended: str, seconds: float) -> Survival:
    rows: list[dict[str, Any]] = [json.loads(line) for line in job.results.read_text().splitlines()]
    outcomes = {row["source_key"]: row for row in rows}
    ids = {clip.source_key: clip.clip_id for clip in job.clips()}
    begun = Counter(call.clip_id for call in calls(job.notes))
    return Survival(
        contender.name,
        ended,
        len(outcomes),
        sorted(key for key in ids if key not in POISON and outcomes.get(key, {}).get("outcome") in (None, "failed")),
        [key for key, times in Counter(row["source_key"] for row in rows).items() if times > 1],
        {key: f"{outcomes[key]['stage']}: {outcomes[key]['error']}" for key in POISON if key in outcomes},
        {key: begun[ids[key]] for key in POISON},
        seconds,
    )


def print_table(survivals: Sequence[Survival], clips: int) -> None:
    """One line a contender."""
    table = Table(
        "", "ended", "innocents lost", "poison named", *(f"{p[7:]}, attempts" for p in POISON), "wall s", box=None
    )
    for s in survivals:
        lost = str(len(s.lost)) + (f" ({', '.join(s.lost)})" if 0 < len(s.lost) <= 4 else "")
        attempts = [f"{s.attempts[key]} {s.named.get(key, 'not named')}" for key in POISON]
        table.add_row(s.contender, s.ended, lost, f"{len(s.named)} of 5", *attempts, f"{s.seconds:.0f}")
    console.print(table, markup=False)
    console.print(f"{machine()}; {clips} clips of {SPAN_S:g} s, {WORKERS} workers, deadline {DEADLINE_S} s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of videos (default: the demo's)")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with the environment xenna")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[contender.name for contender in CONTENDERS])
    parser.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for a contender to finish in")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="keep logs and results here")
    args = parser.parse_args()
    os.environ |= {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"}
    try:
        settings = config.load(CurationConfig, None if args.videos else "demo", SETTINGS)
        videos = list_videos(args.videos)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    survivals = []
    with tempfile.TemporaryDirectory(prefix="faceloom-survival-") as temporary:
        root = (args.folder or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        manifest = made_manifest(root, videos, args.clips)
        clips = open_manifest(manifest).clips
        for contender in CONTENDERS:
            if (args.only and contender.name not in args.only) or (contender.environment and not args.peers):
                continue
            python = str(args.peers / contender.environment / "bin/python") if contender.environment else sys.executable
            folder = root / contender.name.replace(" ", "-")
            folder.mkdir()
            job = Job(
                *(manifest, folder / "results.jsonl", folder / "notes"),
                *(settings.model_dump_json(), contender.variant, DEADLINE_S),
            )
            survivals.append(survive(contender, python, job, folder, args.limit))
            console.print(f"{contender.name}: {survivals[-1].ended}, {survivals[-1].decided} decided", markup=False)
    print_table(survivals, clips)
    if args.json:
        args.json.write_text(json.dumps([vars(survival) for survival in survivals], indent=2))
    sys.exit(any(s.contender == "faceloom" and not s.whole for s in survivals))


if __name__ == "__main__":
    main()
