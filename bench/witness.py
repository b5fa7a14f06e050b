"""Which worker had which clip, told outside of the dataset: ``python -m bench.witness NOTES curate …``.

The true ``faceloom`` command, but that its stages note in the folder ``NOTES`` every call when it begins and when it ends. A
process that is killed leaves a call without an end. For benches and tests that count what is done again, or that have to know
whom they kill.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from curation.drafts import Draft
from curation.ledger import Decision
from curation.sources import Clip
from curation.workers import FaceStage, FlowStage


@dataclass(frozen=True)
class Call:
    """One call of a stage for one clip, or one window of it, by process ``pid``; times are those of ``time.time``."""

    pid: int
    stage: str
    clip_id: str
    began: float
    ended: bool


def calls(notes: Path) -> list[Call]:
    """All calls so far, as they began."""
    return sorted((call for file in notes.glob("*.txt") for call in _calls_of(file)), key=lambda call: call.began)


def in_hand(notes: Path, pid: int) -> Call | None:
    """What a process is at, or was when it died; None between two calls and while it starts."""
    file = notes / f"{pid}.txt"
    last = _calls_of(file)[-1:] if file.exists() else []
    return None if not last or last[0].ended else last[0]


@contextmanager
def noted(notes: Path, stage: str, clip: Clip) -> Iterator[None]:
    """Note that this process has ``clip`` in hand."""
    file = notes / f"{os.getpid()}.txt"
    _append(file, f"{time.time()!r} {stage} {clip.clip_id}\n")
    try:
        yield
    finally:
        _append(file, "end\n")


def witnessed(notes: Path) -> tuple[type[FaceStage], type[FlowStage]]:
    """The product's stages, which note what they have in hand."""

    class WitnessedFaceStage(FaceStage):
        def decide(self, clip: Clip) -> list[tuple[Decision, Draft | None]]:
            with noted(notes, "face", clip):
                return super().decide(clip)

    class WitnessedFlowStage(FlowStage):
        def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:
            with noted(notes, "flow", decision.clip):
                return super().finish(decision, draft)

    return WitnessedFaceStage, WitnessedFlowStage


def _append(file: Path, line: str) -> None:
    # One unbuffered write each: SIGKILL must find nothing half written.
    with file.open("ab", buffering=0) as stream:
        stream.write(line.encode())


def _calls_of(file: Path) -> list[Call]:
    lines = file.read_text().splitlines()
    found = []
    for line, following in zip(lines, [*lines, ""][1:], strict=True):
        if line != "end":
            began, stage, clip_id = line.split()
            found.append(Call(int(file.stem), stage, clip_id, float(began), following == "end"))
    return found


def main() -> None:
    """Run the command with witnessed stages."""
    # Not needed by those who only read or take notes.
    import ray

    import curation.run
    from faceloom import cli

    notes = Path(sys.argv[1])
    notes.mkdir(parents=True, exist_ok=True)
    face, flow = witnessed(notes.absolute())
    curation.run.FaceWorker, curation.run.FlowWorker = ray.remote(face), ray.remote(flow)
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
