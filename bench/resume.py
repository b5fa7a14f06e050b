"""What does a resumed run do again, when most of its clips are rejected?

    python -m bench.resume [--clips 200] [--block-clips 10] [--at 0.5] [--json FILE]

Nine of ten clips are rejected, by rules that look at pixels and by one that does not; the others are kept. When the share
``--at`` of the blocks is committed, the driver and everything below it are killed with SIGKILL, and the same command is run
to its end. Workers note every clip that they are given (``bench/witness.py``): the table counts the clips that had been
decided when the run was killed, and those that were decoded twice. Exits 1 if a clip of a committed block was.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

import faceloom
from bench.reader import machine
from bench.witness import calls
from curation.demo import demo_clips
from curation.ledger import committed, read_ledger
from curation.sources import Clip, open_manifest, write_manifest
from tests.e2e.command import curate_arguments, kill_with_descendants

KEPT_EVERY = 10

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def made_manifest(folder: Path, count: int) -> Path:
    """One of ten clips is the talking man; the others have no face, or one that freezes, or are too short."""
    footage = {clip.source_key: clip for clip in demo_clips(folder / "videos")}
    rejected = [footage[name] for name in ("bicycles.mp4", "frozen.mp4", "too_short.mp4")]
    clips = []
    for i in range(count):
        path = (footage["talking_man.mp4"] if i % KEPT_EVERY == 0 else rejected[i % len(rejected)]).path
        clips.append(Clip("resume", f"{i:04} {Path(path).name}", path))
    write_manifest(clips, folder / "manifest.parquet")
    return folder / "manifest.parquet"


def start(manifest: Path, out: Path, notes: Path, block_clips: int) -> subprocess.Popen[bytes]:
    """The command at work."""
    command = [
        *curate_arguments(manifest, out),
        "--set",
        f"run.block_clips={block_clips}",
        "--set",
        "run.face.workers=2",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.witness", str(notes), *map(str, command)],
        cwd=Path(faceloom.__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    """Print what was done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--block-clips", type=int, default=10)
    parser.add_argument("--at", type=float, default=0.5, help="share of the blocks (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faceloom-resume-") as name:
        folder = Path(name)
        manifest, out, notes = made_manifest(folder, args.clips), folder / "dataset", folder / "notes"
        blocks = [*open_manifest(manifest).blocks(args.block_clips)]
        driver = start(manifest, out, notes, args.block_clips)
        while len(committed(out, len(blocks))) < args.at * len(blocks):
            if driver.poll() is not None:
                raise SystemExit("the run ended before it could be killed; give more --clips")
            time.sleep(0.01)
        kill_with_descendants(psutil.Process(driver.pid))
        driver.wait()
        killed, done = time.time(), committed(out, len(blocks))
        if start(manifest, out, notes, args.block_clips).wait():
            raise SystemExit("the resumed run failed")
        outcomes = Counter(read_ledger(out, ["outcome"])["outcome"].to_pylist())
        face = [call for call in calls(notes) if call.stage == "face"]
    before = {call.clip_id for call in face if call.began < killed}
    after = {call.clip_id for call in face if call.began >= killed}
    decided = {clip.clip_id for number in done for clip in blocks[number]}
    result = {
        "clips": args.clips,
        "outcomes": outcomes,
        "blocks": len(blocks),
        "blocks committed at the kill": len(done),
        "clips of committed blocks": len(decided),
        "of which decoded again": len(decided & after),
        "clips begun in open blocks": len(before - decided),
        "clips decoded twice": len(before & after),
        "calls in both runs": len(face),
    }
    table = Table(box=None, show_header=False)
    for told, value in result.items():
        table.add_row(
            told, ", ".join(f"{n} {k}" for k, n in value.items()) if isinstance(value, Counter) else str(value)
        )
    console.print(table)
    console.print(machine())
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    sys.exit(bool(decided & after))


if __name__ == "__main__":
    main()
