"""How far one face's expression, head and lips are from another's, frame by frame.

What SkyReels-A1's paper (§5) says of its expression and pose scores: the L1 distance between blendshapes and between head
poses. Frame i of one face is held against frame i of the other; a frame without one of the two is NaN, and NaN here.
"""

import numpy as np
from numpy.typing import NDArray

from curation.statistics import STATISTICS
from evaluation.measure import Measure
from landmarks.angles import Floats, geodesic_deg, head_pose_deg
from landmarks.retarget import apparent_rotation

LEAST_FRAMES = 8
"""A correlation over fewer frames says nothing."""
_STILL_CM = 0.02  # by which MediaPipe's lips move on a picture that is shown again and again

Values = NDArray[np.float64]


def expression_distance(a: Floats, b: Floats) -> Values:
    """Mean absolute difference of 51 blendshapes, 0..1, ``[T]``; ``a`` and ``b`` are ``[T, 51]``."""
    return np.asarray(np.abs(a.astype(np.float64) - b).mean(axis=1))


def pose_distance_deg(a: Floats, b: Floats) -> Values:
    """Between poses ``[T, 4, 4]``: ``|Δyaw|, |Δpitch|, |Δroll|`` and the angle of the rotation from one to the other.

    Degrees, ``[T, 4]``. Raises ``ValueError`` as :func:`landmarks.angles.head_pose_deg`.
    """
    turned = np.abs(head_pose_deg(a) - head_pose_deg(b))
    turned = np.minimum(turned, 360 - turned)
    return np.concatenate([turned, geodesic_deg(a, b)[:, None]], axis=1)


def since(pose: Floats, frame: int) -> NDArray[np.float64]:
    """Poses ``[T, 4, 4]`` as turns from that of one frame: ``A_frame⁻¹ · A_i``, as the camera sees them.

    What :func:`landmarks.retarget.transfer_rotation` carries over, and all that two people in two places can have in common.
    """
    seen = apparent_rotation(pose)
    turned = np.array(pose, np.float64)
    turned[:, :3, :3] = seen[frame].T @ seen
    return turned


def best_offset(result: Floats, driver: Floats, most: int) -> int:
    """By how many frames later the driver is to be read for the least mean :func:`expression_distance`.

    ``result[T, 51]``, ``driver[U, 51]``; at most ``most`` frames either way, of two that are equally good the smaller. 0
    where no frame can be compared.
    """
    best, least = 0, np.inf
    for offset in sorted(range(-most, most + 1), key=abs):
        start, stop = max(0, -offset), min(len(result), len(driver) - offset)
        if start >= stop:
            continue
        distance = expression_distance(result[start:stop], driver[start + offset : stop + offset])
        known = distance[np.isfinite(distance)]
        if len(known) and known.mean() < least:
            best, least = offset, float(known.mean())
    return best


def lip_gap_correlation(result_cm: Values, other_cm: Values, other: str, offset: int | None = None) -> Measure:
    """Pearson's correlation between two lip gaps ``[T]`` in cm: 1 when one mouth opens as the other does.

    Undefined, and None, where the ``other`` mouth does not move by more than noise or fewer than 8 frames show both. A result
    whose lips do not move while the other's do has 0: it follows nothing.
    """
    both = np.isfinite(result_cm) & np.isfinite(other_cm)
    frames, total = int(both.sum()), len(both)
    if frames < LEAST_FRAMES:
        reason = f"{frames} frames show both faces, and {LEAST_FRAMES} are needed"
        return Measure(None, frames, total, offset, reason)
    a, b = result_cm[both], other_cm[both]
    moved = float(np.subtract(*np.percentile(b, [95, 5])))
    noise = STATISTICS["lip_gap_range_cm"].noise or 0.0
    if moved <= noise:
        reason = f"the lips of the {other} move by {moved:.2f} cm, and {noise:g} cm may be noise"
        return Measure(None, frames, total, offset, reason)
    if np.subtract(*np.percentile(a, [95, 5])) <= _STILL_CM:
        return Measure(0.0, frames, total, offset, "the lips of the result do not move")
    return Measure(float(np.corrcoef(a, b)[0, 1]), frames, total, offset)
