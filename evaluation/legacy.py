"""What SkyReels-A1's own scripts compute, quirks included: ``arc_score.py``, ``expression_score.py``, ``pose_score.py``.

Only so are numbers comparable with Table 1 of the paper. What each leaves out, mistakes or rewards is told where it is
computed, and in ``docs/evaluation.md``; the honest measures are in :mod:`evaluation.motion`, ``similarity`` and ``frechet``.
Here is the arithmetic alone, on what the networks gave: a frame in which a network found nothing is not among the rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_WH = (720, 480)
"""Every frame is resized to this before key points and body joints are looked for, whatever its shape."""

_HALF_PERIMETER = sum(FRAME_WH)
_LEAST_POSE = 1e-4

Points = NDArray[np.floating[Any]]


def frames_of_similarity(count: int) -> NDArray[np.int64]:
    """The 16 of a video's ``count`` frames that similarity and "FID" look at, repeats and all."""
    return np.linspace(0, count - 1, 16, dtype=np.int64)


def similarity(reference: NDArray[np.float32], frames: Sequence[NDArray[np.float32]]) -> float:
    """FaceSim: the mean cosine between the reference's embedding ``[D]`` and those of frames, each at least 0.

    A frame without a face has no embedding and does not count, so a video that loses the face gains; one that never shows a
    face has 0.
    """
    if not len(frames):
        return 0.0
    made = np.stack(frames).astype(np.float64)
    cosines = made @ reference.astype(np.float64)
    cosines /= np.linalg.norm(made, axis=1) * np.linalg.norm(reference.astype(np.float64))
    return float(np.maximum(cosines, 0).mean())


def inception_distance(reference: NDArray[np.float32], frames: Sequence[NDArray[np.float32]]) -> float:
    """What is printed as "fid": the mean squared L2 distance between Inception's features ``[D]``.

    The script hands its Fréchet distance one reference and one frame, each twice over, for a covariance needs two rows. Both
    covariances are then 0, and of ``|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½)`` the first term alone is left. A video that never
    shows a face has 0, the best there is.
    """
    if not len(frames):
        return 0.0
    apart = np.stack(frames).astype(np.float64) - reference.astype(np.float64)
    return float((apart**2).sum(axis=1).mean())


def expression(result: Points, driver: Points) -> float:
    """Five key points ``[N, 5, 2]`` of every frame of the result against ``[M, 5, 2]`` of the driver's, in px of 720×480.

    Each frame is charged the distance to the driver's frame that is *nearest* to it, whenever that is: time has no part in
    it, and a still picture of any pose that the driver passes through has 0. L1 over the points, over 1200 px, over 10
    coordinates. Blendshapes, which the paper speaks of, are not looked at.
    """
    apart = np.abs(result[:, None].astype(np.float64) - driver[None].astype(np.float64)).sum(axis=(2, 3))
    return float((apart.min(axis=1) / _HALF_PERIMETER / 10).mean())


def pose(result: Sequence[Points], driver: Sequence[Points]) -> float:
    """Body joints ``[P, 2]`` of every frame of the result against the driver's nearest frame, in px of 720×480.

    OpenPose's candidates in the order they were found, cut to the shorter list: which joint they are of is not known, and one
    that is missing moves all that follow. L1 over the points, over 1200 px, over 16. A frame of more than 1 does not count,
    nor does one without a candidate; 0 where none counts.
    """
    distances = []
    for own in result:
        compared = [_peaks_apart(own, other) for other in driver if len(own) and len(other)]
        if compared and (nearest := min(compared) / _HALF_PERIMETER / 16) <= 1:
            distances.append(nearest)
    return float(np.mean(distances)) if distances else 0.0


def _peaks_apart(a: Points, b: Points) -> float:
    shared = min(len(a), len(b))
    return float(np.abs(a[:shared].astype(np.float64) - b[:shared].astype(np.float64)).sum())


def counts_in_the_mean(metric: str, value: float) -> bool:
    """Whether the scripts have a video's value in the mean over videos: of poses, those above 0.0001."""
    return metric != "legacy_pose" or value > _LEAST_POSE
