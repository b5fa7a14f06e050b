"""How far the mouth is open and how much the face moves: what the motion filter knows of expressions.

jawOpen alone misses a laugh with parted lips and a still jaw, and the aspect ratio shrinks with yaw and pucker, so the
filter looks at all three mouth measures. A frame without a face is NaN, and gives NaN here.
"""

import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats

JAW_OPEN = 25  # position of jawOpen among MediaPipe's 52 blendshapes; position 0 is `_neutral`
_CORNERS = (78, 308)  # inner lips
_LIP_PAIRS = ((82, 87), (13, 14), (312, 317))  # inner lips: upper, lower


def mouth_aspect_ratio(points: Floats, width: int, height: int) -> NDArray[np.float64]:
    """Mean opening of the inner lips over the distance between their corners, ``[T]``.

    ``points[T, 478, 3]`` are normalised to a frame of ``width`` × ``height`` px, as MediaPipe does (z by the width).
    """
    px = points * np.array([width, height, width], dtype=np.float64)
    opening = np.mean([_distance(px, upper, lower) for upper, lower in _LIP_PAIRS], axis=0)
    return np.asarray(opening / _distance(px, *_CORNERS))


def lip_gap_cm(metric: Floats) -> NDArray[np.float64]:
    """Distance between the middle of the inner lips in cm, ``[T]``; free of head pose and size.

    ``metric[T, 478, 3]`` are the canonical-aligned points of :func:`landmarks.geometry.metric_landmarks`.
    """
    return _distance(metric, 13, 14)


def jaw_open(blendshapes: Floats) -> NDArray[np.float64]:
    """MediaPipe's jawOpen, 0..1, of ``blendshapes[T, 52]``, as ``[T]``."""
    return np.asarray(blendshapes[:, JAW_OPEN], dtype=np.float64)


def expression_activity(blendshapes: Floats) -> float:
    """How lively the face is: the temporal standard deviation of ``blendshapes[T, 52]``, averaged without ``_neutral``.

    Frames without a face are left out; NaN if none has one.
    """
    found = blendshapes[np.isfinite(blendshapes).all(axis=1), 1:].astype(np.float64)
    return float(found.std(axis=0).mean()) if len(found) else float("nan")


def _distance(points: Floats, a: int, b: int) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points[:, a].astype(np.float64) - points[:, b], axis=-1))
