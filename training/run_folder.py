"""The folder of a run: whose it is, and where in it everything lies.

::

    run.json              configuration, data and initial weights of the run; another run is refused
    checkpoints/          step-00000200 … (training.checkpoint)
    metrics.jsonl         one line a report; tensorboard/ holds the same
    validation/           videos of held-out clips
    heartbeats/           what each rank is at (training.heartbeat)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faceloom
from faceloom.config import differences
from faceloom.errors import UserError
from shards.storage import make_folder, write_atomic

RECORD = "run.json"
CHECKPOINTS = "checkpoints"
HEARTBEATS = "heartbeats"


def claim(out: Path, record: Mapping[str, Any], resume: bool) -> None:
    """Make ``out`` the folder of the run that ``record`` describes, or check that it is.

    ``record`` has the keys ``deciding`` (what decides the weights that come out; must be equal on resume), ``config`` (the
    whole configuration, the rest of which may change) and ``drawings`` (see :mod:`training.export`). Raises
    :class:`UserError` if the folder is another run's, if it is this run's and ``resume`` is false, or cannot be written.
    """
    path = out / RECORD
    if path.exists():
        if not resume:
            raise UserError(f"{out} holds a run already; go on with it by --resume, or name another --out")
        before = read_record(out)
        changed = differences(before["deciding"], record["deciding"])
        if changed:
            raise UserError(
                f"{out} holds another run; what differs:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\ngo on with what it was begun with, or begin another --out (model.init takes an export of this one)"
            )
    try:
        make_folder(out.absolute())
        text = json.dumps({"faceloom": faceloom.__version__, **record}, indent=2, sort_keys=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None


def read_record(out: Path) -> dict[str, Any]:
    """``run.json`` of the run in ``out``. Raises :class:`UserError` if there is none that can be read."""
    path = out / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; give the folder of a run, which `faceloom train --out` named"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}; copy it from a backup, or begin another run") from None
    return record
