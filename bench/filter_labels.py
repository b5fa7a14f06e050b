"""What must become of a composite, and whether it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Expected = Literal["kept", "rejected", "split", "either"]


@dataclass(frozen=True)
class Mark:
    """Frames ``[T]``, or their part ``box`` (x0, y0, x1, y1, px), that at most ``share`` of a sample's frames may show."""

    what: str
    frames: np.ndarray
    box: tuple[float, float, float, float] | None = None
    share: float = 0.0


@dataclass(frozen=True)
class Label:
    """What must become of a composite.

    ``kept``: a sample. ``rejected``: none, by one of ``rules``, of which the first is meant for this. ``split``: a sample
    that touches no mark. ``either``: none by one of ``rules``, or a sample that touches no mark. No sample may reach over a
    seam, the first frame of another shot, nor show all of the boxes ``apart`` (x0, y0, x1, y1, px). ``second``: it is about a
    second character.
    """

    expected: Expected
    rules: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    seams: tuple[int, ...] = ()
    apart: tuple[tuple[float, float, float, float], ...] = ()
    second: bool = False


@dataclass(frozen=True)
class Sample:
    """Frames ``[n]`` of the composite that a sample shows, and which part of them: x, y, w, h in px."""

    frames: np.ndarray
    crop: tuple[float, float, float, float]


@dataclass(frozen=True)
class Result:
    """What a run made of a composite: an outcome, the rule or error behind it, and what was measured."""

    outcome: Literal["kept", "rejected", "failed"]
    because: str
    value: float | None
    threshold: float | None
    statistics: dict[str, float]
    samples: tuple[Sample, ...]

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        samples = [{"frames": [int(i) for i in sample.frames], "crop": list(sample.crop)} for sample in self.samples]
        return {**vars(self), "samples": samples}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Result":
        """What :meth:`as_json` wrote."""
        samples = tuple(Sample(np.array(s["frames"], int), tuple(s["crop"])) for s in tree["samples"])
        return cls(**{**tree, "samples": samples})


Finding = Literal["right", "leak", "lost", "another rule"]
"""``leak``: a sample that must not be. ``lost``: none where one must be. ``another rule``: rightly rejected, by chance."""

_EDGE_PX = 2
"""As far may a crop reach into what it must not show: the pixels that an encoder smears."""


def judge(label: Label, result: Result) -> tuple[Finding, str]:
    """Whether ``result`` is what ``label`` asks for, and, where it is not, why."""
    if result.outcome != "kept":
        because = result.because
        if result.value is not None and result.threshold is not None:
            because += f" {result.value:.3g} against {result.threshold:.3g}"
        if label.expected in {"kept", "split"}:
            return "lost", f"{result.outcome}: {because}"
        return ("right", "") if result.because in label.rules else ("another rule", because)
    if label.expected == "rejected":
        return "leak", "kept"
    touched = [what for sample in result.samples for what in touches(label, sample)]
    return ("leak", f"kept with {', '.join(touched)}") if touched else ("right", "")


def touches(label: Label, sample: Sample) -> list[str]:
    """The seams that ``sample`` reaches over, and what it shows more of than it may."""
    first, last = int(sample.frames.min()), int(sample.frames.max())
    found = [f"the seam at frame {seam}" for seam in label.seams if first < seam <= last]
    if label.apart and all(_overlap(sample.crop, box) for box in label.apart):
        found.append("what only one sample each may show")
    for mark in label.marks:
        share = float(mark.frames[sample.frames].mean()) if _overlap(sample.crop, mark.box) else 0.0
        if share > mark.share:
            found.append(f"{mark.what} in {share:.0%} of its frames")
    return found


def _overlap(crop: Sequence[float], box: Sequence[float] | None) -> bool:
    if box is None:
        return True
    x, y, w, h = crop
    shared = min(x + w, box[2]) - max(x, box[0]), min(y + h, box[3]) - max(y, box[1])
    return min(shared) > _EDGE_PX
