"""The demo's training: its clips split in two, and whether the run learned what it should."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from shards.repack import repack

LEAST_USE = 1.05
"""How much worse another clip's landmarks must be for a clip than its own, for the demo to say that the model uses them."""

_NOTHING_TO_LEARN = {"identity": 1.01}
"""What a stage may make of the loss: there is one man, whose face tells nothing that a constant would not."""

_SAMPLES_PER_SHARD = 4


def split(dataset: Path, training: Path, held_out: Path, held_out_keys: Collection[str]) -> None:
    """Copy the clips whose ``source_key`` is in ``held_out_keys`` to ``held_out`` and the others to ``training``.

    A folder that is there stays as it is. Raises :class:`UserError` as :func:`shards.repack.repack`.
    """
    keys = ", ".join(f"'{key}'" for key in sorted(held_out_keys))
    for out, condition in ((training, f"source_key NOT IN ({keys})"), (held_out, f"source_key IN ({keys})")):
        if not out.exists():
            repack(dataset, out, _SAMPLES_PER_SHARD, where=condition)


def unexpected(run: Path) -> list[str]:
    """One sentence for each thing that the run in ``run`` should have learned and did not."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured: list[dict[str, Any]] = [line for line in lines if "held_out" in line]
    last = measured[-1]
    before = measured[0]["held_out"]
    surprises = []
    for stage, after in {line["stage"]: line["held_out"] for line in measured[1:]}.items():
        if after >= before * _NOTHING_TO_LEARN.get(stage, 1.0):
            surprises.append(f"stage {stage}: the held-out loss did not fall, from {before:.5f} to {after:.5f}")
        before = after
    if last["held_out_other_landmarks"] < LEAST_USE * last["held_out"]:
        surprises.append(
            f"the model hardly uses its landmarks: the held-out loss is {last['held_out']:.4f}, and with another clip's "
            f"landmarks no more than {last['held_out_other_landmarks']:.4f}"
        )
    return surprises
