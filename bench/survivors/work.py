"""What every contender of ``bench.survival`` is given to do, and how it reports.

A contender is a module with a ``main()`` that takes a :class:`Job` from its command line, in a process of its own. Its
workers keep a :func:`poisonable` stage each and call it once a clip; what became of the clip goes to ``job.results``, one
JSON line a clip, as soon as the contender's user would have it.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.witness import noted
from curation.config import CurationConfig
from curation.drafts import Draft
from curation.ledger import Decision, row
from curation.sources import Clip, open_manifest
from curation.workers import FaceStage

SEGFAULTS, HANGS, EATS_MEMORY = "poison-segfaults", "poison-hangs", "poison-eats-memory"
TRUNCATED, EMPTY = "poison-truncated", "poison-empty"
POISON = (SEGFAULTS, HANGS, EATS_MEMORY, TRUNCATED, EMPTY)
WORKERS = 2
MEMORY_GUARD_MIB = 3072
"""A worker that has eaten so much kills itself as the kernel would have, so that the machine survives every contender."""
_BITE_MIB = 64


@dataclass(frozen=True)
class Job:
    """``variant`` names the settings of a contender; ``config`` is a :class:`CurationConfig` as JSON."""

    manifest: Path
    results: Path
    notes: Path
    config: str
    variant: str
    deadline_s: float

    @property
    def settings(self) -> CurationConfig:
        """The configuration of the work."""
        return CurationConfig.model_validate_json(self.config)

    def clips(self) -> list[Clip]:
        """What there is to do."""
        return [clip for block in open_manifest(self.manifest).blocks(1024) for clip in block]

    def report(self, decided: dict[str, Any]) -> None:
        """Tell what became of one clip; from any process."""
        with self.results.open("ab", buffering=0) as stream:
            stream.write(json.dumps(decided).encode() + b"\n")

    def save(self, path: Path) -> None:
        """For :func:`load_job`."""
        path.write_text(json.dumps({name: str(value) for name, value in vars(self).items()}))


def load_job() -> Job:
    """The job that the command line names."""
    told = json.loads(Path(sys.argv[1]).read_text())
    paths = {name: Path(told.pop(name)) for name in ("manifest", "results", "notes")}
    return Job(**paths, **told | {"deadline_s": float(told["deadline_s"])})


def outcome(decision: Decision) -> dict[str, Any]:
    """What a result says of a clip."""
    told = row(decision, None)
    return {name: told.get(name) for name in ("source_key", "outcome", "rule", "stage", "error", "message")}


def poisonable(notes: Path) -> type[FaceStage]:
    """The product's face stage, which dies, hangs or grows over clips of certain names, and notes every clip it begins."""

    class PoisonableFaceStage(FaceStage):
        def decide(self, clip: Clip) -> list[tuple[Decision, Draft | None]]:
            with noted(notes, "face", clip):
                _swallow(clip.source_key)
                return super().decide(clip)

    return PoisonableFaceStage


class Watchdog:
    """What a user of a peer can do himself about hangs: the worker ends itself when a clip takes too long."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._since: float | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            since = self._since
            if since is not None and time.monotonic() - since > self._deadline_s:
                os._exit(1)


def _swallow(key: str) -> None:
    match key:
        case "poison-segfaults":
            ctypes.string_at(0)
        case "poison-hangs":
            while True:
                ctypes.CDLL(None).pause()
        case "poison-eats-memory":
            eaten = []
            while len(eaten) * _BITE_MIB < MEMORY_GUARD_MIB:
                eaten.append(np.ones(_BITE_MIB << 20, np.uint8))
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
