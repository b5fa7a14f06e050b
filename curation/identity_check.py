"""Whether footage shows one person throughout, by the shape of the head and, where there is a model, by the face's looks."""

from typing import Literal

import numpy as np
from pydantic import Field

from faceloom.config import Section
from landmarks.angles import head_pose_deg
from landmarks.record import LandmarkRecord


class IdentityCheckConfig(Section):
    """When a face is taken for another person's."""

    max_shift_cm: float = 0.35
    """Mean distance of the rigid points between two halves that show the head alike. Of nine people, halved in four ways,
    it is up to 0.31 cm; between two people 0.28 and more: a second line behind cuts, dissolves and leaps."""
    model: Literal["none", "sface", "arcface"] = "none"
    """A recognition network, whose file you supply, that looks at the face twice a second as well."""
    min_similarity: float = Field(0.35, ge=-1, le=1)
    """Cosine of the most unlike of a window's looks with the median of its shot. SFace's authors take two faces for one
    person's from 0.363; for ArcFace within one video, 0.5 is usual. Neither was measured here."""


_EXPRESSION_DEG = 5.0  # one unit of blendshapes counts like so many degrees when frames are matched
_DISTANCE_DEG = 50.0  # and so does one of the logarithm of the distance to the camera: a tenth nearer like 5 degrees
_ALIKE_DEG = 5.0
_PAIRS = 60
_LEAST_PAIRS = 10
_MOST = 60  # frames of a half, evenly chosen of a long shot: matching takes their product
_LEAST = 12  # frames of a half, 1 s: less is one expression


def identity_shift_cm(metric: np.ndarray, record: LandmarkRecord, rigid: np.ndarray) -> float:
    """How far the shape of the head differs between the two halves of the frames, in cm; NaN where they show it unalike.

    ``metric[T, 478, 3]`` are the points in canonical space (cm), ``rigid[B]`` those of them that no expression moves:
    the ones that poses are fitted to (:class:`landmarks.geometry.CanonicalFace`). MediaPipe's shape of one head changes with
    the pose, with the distance (by 1 cm when someone leans towards the camera) and a little with the expression. So the
    halves are compared by the pairs of frames, one of each half, that are most alike in all three: the median of their
    differences, its length averaged over the points. With less than ten alike pairs nothing is said.
    """
    before, after = (_spread(half) for half in np.array_split(np.flatnonzero(record.found), 2))
    if min(len(before), len(after)) < _LEAST:
        return float("nan")
    a, b = (_manner(record, half) for half in (before, after))
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    # A stable sort: the choice among equals must not depend on the machine.
    nearest = np.argsort(apart, axis=None, kind="stable")[:_PAIRS]
    nearest = nearest[apart.ravel()[nearest] <= _ALIKE_DEG]
    if len(nearest) < _LEAST_PAIRS:
        return float("nan")
    i, j = np.unravel_index(nearest, apart.shape)
    difference = np.median(metric[before[i]][:, rigid] - metric[after[j]][:, rigid], axis=0)
    return float(np.linalg.norm(difference, axis=1).mean())


def _manner(record: LandmarkRecord, frames: np.ndarray) -> np.ndarray:
    """How ``frames[n]`` show the head, whoever's it is: pose, distance and expression on one scale, ``[n, 54]`` degrees."""
    yaw_pitch = head_pose_deg(record.pose[frames])[:, :2]
    distance = np.log(-record.pose[frames, 2, 3])[:, None]
    return np.concatenate(
        [yaw_pitch, _DISTANCE_DEG * distance, _EXPRESSION_DEG * record.blendshapes[frames, 1:]], axis=1
    )


def _spread(frames: np.ndarray) -> np.ndarray:
    """At most ``_MOST`` of ``frames``, evenly chosen."""
    if len(frames) <= _MOST:
        return frames
    return np.asarray(frames[np.linspace(0, len(frames) - 1, _MOST).round().astype(int)])
