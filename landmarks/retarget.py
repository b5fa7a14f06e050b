"""One face's expression on another face, in metric space; the maths of the MediaPipe backend (SkyReels-A1 §3.2).

Faces are metric points in canonical head space (cm; x to the image's right, y up, z towards the camera), as
:func:`landmarks.geometry.metric_landmarks` gives them, so that what remains in them is identity and expression. Identity is
carried over by difference, V = V_ref + (V_driver - V_matched), where V_matched is the driver wearing the reference's
expression; taking it instead of a neutral face keeps a smiling portrait from smiling twice. Differences alone would let lips
cross or never meet, so openings are carried over as openings: closed is closed on any face.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats
from landmarks.geometry import pieces
from landmarks.topology import EYES, LIPS, MOUTH_CORNERS, Eye

_SHUT = 0.5  # a blink above this hides how far the eye opens
_MAX_EYE_SCALE = 2.0  # where the driver's matching eye is nearly shut, a ratio of openings says little


def transfer_expression(
    driving: Floats, driving_blendshapes: Floats, reference: Floats, reference_blendshapes: Floats
) -> NDArray[np.float64]:
    """The face ``reference[478, 3]`` with the expressions of ``driving[T, 478, 3]``, both metric: ``[T, 478, 3]``.

    Blendshapes are MediaPipe's, ``[T, 52]`` and ``[52]``. With a frame of ``driving`` itself as the reference, the result
    is ``driving``. Frames that are NaN stay NaN. Raises ``ValueError`` if no frame of ``driving`` has a face.
    """
    matched = matching_face(driving, driving_blendshapes, reference_blendshapes)
    return worn(driving, matched, reference, reference_blendshapes)


def worn(driving: Floats, matched: Floats, reference: Floats, reference_blendshapes: Floats) -> NDArray[np.float64]:
    """:func:`transfer_expression` of some frames, given the driver's face that matches the reference's expression.

    ``matched[478, 3]`` is :func:`matching_face` of all his frames, ``driving[T, 478, 3]`` any of them.
    """
    driving, reference = np.asarray(driving, np.float64), np.asarray(reference, np.float64)
    points = reference + (driving - matched)

    lip_scale = _width(reference, MOUTH_CORNERS) / _width(matched, MOUTH_CORNERS)
    for upper, lower in LIPS:
        _open(points, driving, upper, lower, lip_scale)
    for eye in EYES:
        size, iris_map = _eye_scale(eye, matched, reference, shut=bool(reference_blendshapes[eye.blink] > _SHUT))
        for upper_lid, lower_lid in eye.lids:
            _open(points, driving, (upper_lid,), (lower_lid,), size)
        offset = driving[:, eye.iris, :2] - driving[:, eye.contour, :2].mean(axis=1, keepdims=True)
        points[:, eye.iris, :2] = points[:, eye.contour, :2].mean(axis=1, keepdims=True) + offset @ iris_map
    return points


def matching_face(driving: Floats, blendshapes: Floats, wanted: Floats) -> NDArray[np.float64]:
    """The driver as he looks with the expression ``wanted[52]``: ``[478, 3]``, in the space of ``driving[T, 478, 3]``.

    The mean of his frames with weights 1/d⁴, where d is the distance of their ``blendshapes[T, 52]`` (without
    ``_neutral``) to the wanted ones: exactly a frame that has them, and where none is near, an average that no single
    frame's noise or pose decides. Source: inverse-distance weighting (Shepard 1968). On 56 pairs of talking heads the
    distances between rigid points stay those of the reference within 2.2 % that way, with the nearest frame alone within
    4.3 % (bench/retarget.py).
    """
    usable = np.asarray(np.isfinite(driving).all(axis=(1, 2)) & np.isfinite(blendshapes).all(axis=1))
    if not usable.any():
        raise ValueError("the driving record has no frame with a face")
    distance = np.linalg.norm(blendshapes[usable, 1:].astype(np.float64) - wanted[1:], axis=1)
    weights = np.zeros(len(usable))
    weights[usable] = np.maximum(distance, 1e-6) ** -4.0
    weights /= weights.sum()
    mean = np.zeros(driving.shape[1:])
    for piece in pieces(len(usable)):
        frames = driving[piece][usable[piece]].astype(np.float64)
        mean += np.tensordot(weights[piece][usable[piece]], frames, axes=1)
    return mean


def transfer_rotation(driving: Floats, reference: Floats) -> NDArray[np.float64]:
    """Poses ``[T, 4, 4]`` of the reference's head as the driver turns his: R_ref · R_0⁻¹ · R_i at t_ref.

    Of rotations as the camera sees them (:func:`apparent_rotation`); ``driving[T, 4, 4]`` and ``reference[4, 4]`` are poses
    as :func:`landmarks.geometry.metric_landmarks` gives them, and frame 0 is the first of ``driving`` that is not NaN.
    """
    seen = apparent_rotation(driving)
    first = seen[np.isfinite(seen).all(axis=(1, 2))][0]
    pose = np.tile(np.asarray(reference, np.float64), (len(driving), 1, 1))
    pose[:, :3, :3] = ray_rotation(pose[:, :3, 3]) @ apparent_rotation(reference) @ first.T @ seen
    return pose


def apparent_rotation(pose: Floats) -> NDArray[np.float64]:
    """Rotation of the head as the camera sees it, ``[..., 3, 3]``, of ``pose[..., 4, 4]``.

    It is taken against the ray from the camera to the head, not against the camera's axis: a head that only moves
    sideways shows the camera another side, and that is what has to be kept when the movement is not.
    """
    pose = np.asarray(pose, np.float64)
    return np.asarray(np.swapaxes(ray_rotation(pose[..., :3, 3]), -1, -2) @ pose[..., :3, :3])


def ray_rotation(towards: Floats) -> NDArray[np.float64]:
    """The smallest rotation ``[..., 3, 3]`` that turns the camera's axis, -z, to ``towards[..., 3]``.

    Source: Rodrigues' formula. The direction must not be +z, behind the camera.
    """
    direction = towards / np.linalg.norm(towards, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(np.asarray(direction, np.float64), -1, 0)
    # Axis -z × d = (y, -x, 0) and cosine -z; its cross-product matrix K gives I + K + K² / (1 + cosine).
    zero = np.zeros_like(x)
    K = np.stack([zero, zero, -x, zero, zero, -y, x, y, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.asarray(np.eye(3) + K + K @ K / (1 - z)[..., None, None])


def _open(
    points: NDArray[np.float64],
    driving: Floats,
    upper: tuple[int, ...],
    lower: tuple[int, ...],
    scale: float,
) -> None:
    """Move the columns ``upper`` and ``lower`` apart or together, until their last points gape ``scale`` × the driver's."""
    u, l = upper[-1], lower[-1]  # noqa: E741
    missing = scale * (driving[:, u] - driving[:, l]) - (points[:, u] - points[:, l])
    points[:, upper] += missing[:, None] / 2
    points[:, lower] -= missing[:, None] / 2


def _eye_scale(eye: Eye, matched: Floats, reference: Floats, shut: bool) -> tuple[float, NDArray[np.float64]]:
    """How much further the reference's lids open than the driver's, and the map ``[2, 2]`` of iris offsets (row vectors).

    Both from the eyes as a whole: one map for the clip, because a map fitted to each frame's own contour breaks down when the
    eye closes to a line. A reference whose eye is ``shut`` shows no more of it than its width.
    """
    if shut:
        size = _width(reference, eye.corners) / _width(matched, eye.corners)
        return size, size * np.eye(2)
    source, target = matched[list(eye.contour), :2], reference[list(eye.contour), :2]
    affine = np.linalg.lstsq(source - source.mean(axis=0), target - target.mean(axis=0), rcond=None)[0]
    U, gains, Vt = np.linalg.svd(affine)
    size = _openings(reference, eye.lids) / _openings(matched, eye.lids)
    return float(_bounded(size)), np.asarray(U * _bounded(gains) @ Vt)


def _bounded(scale: Any) -> Any:
    return np.clip(scale, 1 / _MAX_EYE_SCALE, _MAX_EYE_SCALE)


def _openings(face: Floats, pairs: tuple[tuple[int, int], ...]) -> float:
    upper, lower = np.transpose(pairs)
    return float(np.linalg.norm(face[upper] - face[lower], axis=1).mean())


def _width(face: Floats, corners: tuple[int, int]) -> float:
    return float(np.linalg.norm(face[corners[0]] - face[corners[1]]))
