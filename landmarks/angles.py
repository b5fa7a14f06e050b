"""Head rotation of each frame: Euler angles to read, geodesic angles to compare.

Poses are the ``[T, 4, 4]`` matrices of :func:`landmarks.geometry.metric_landmarks`, canonical head space (cm, x to the
image's right, y up, z towards the camera) to camera space. A frame without a face is NaN, and gives NaN here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def head_pose_deg(pose: Floats) -> NDArray[np.float64]:
    """Yaw, pitch and roll of each frame ``pose[T, 4, 4]``, in degrees, as ``[T, 3]``.

    The rotation is split as R = Ry(yaw) · Rx(pitch) · Rz(roll): yaw > 0 turns the nose to the image's right, pitch > 0
    looks down, roll > 0 is counter-clockwise in the image. Pitch carries a bias of up to ±10° from the height of the
    camera, so movement is better read from its difference to the median; MediaPipe compresses large yaw
    (google-ai-edge/mediapipe#2809 reports 56° for a profile). Raises ``ValueError`` if a rotation block is not
    orthonormal to 1e-3, as happens when a scaled matrix is passed.
    """
    R = _rotations(pose)
    yaw = np.arctan2(R[:, 0, 2], R[:, 2, 2])
    pitch = np.arcsin(np.clip(-R[:, 1, 2], -1, 1))
    roll = np.arctan2(R[:, 1, 0], R[:, 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)))


def geodesic_range_deg(pose: Floats) -> float:
    """How far the head turns over ``pose[T, 4, 4]``, whatever the axis, in degrees.

    Twice the 95th percentile of the angle to the mean rotation (chordal mean: the rotation nearest to the mean
    matrix). NaN if no frame has a face.
    """
    R = _rotations(pose)
    R = R[np.isfinite(R).all(axis=(1, 2))]
    if not len(R):
        return float("nan")
    mean = nearest_rotation(R.mean(axis=0))
    return float(2 * np.percentile(_angle_deg(R, mean), 95))


def angular_speed_deg_s(pose: Floats, fps: float) -> NDArray[np.float64]:
    """Speed of the head's rotation between neighbouring frames of ``pose[T, 4, 4]``, in degrees a second, ``[T-1]``."""
    R = _rotations(pose)
    return _angle_deg(R[1:], R[:-1]) * fps


def geodesic_deg(a: Floats, b: Floats) -> NDArray[np.float64]:
    """The angle of the rotation from each of ``a[T, 4, 4]`` to its fellow in ``b[T, 4, 4]``, whatever the axis, ``[T]``."""
    return _angle_deg(_rotations(a), _rotations(b))


def nearest_rotation(matrices: Floats) -> NDArray[np.float64]:
    """Project each of ``matrices[..., 3, 3]`` to the nearest rotation: Frobenius norm, determinant +1."""
    U, _, Vt = np.linalg.svd(np.asarray(matrices, dtype=np.float64))
    U[..., :, 2] *= np.sign(np.linalg.det(U @ Vt))[..., None]
    return np.asarray(U @ Vt)


def _angle_deg(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    # |A - B|_F = 2·sqrt(2)·sin(angle / 2). Unlike acos of the trace, this keeps its precision for the small angles
    # between neighbouring float32 poses: acos would add a floor of 0.3 degrees a second at 12 fps.
    chord = np.linalg.norm(a - b, axis=(-2, -1))
    return np.asarray(np.degrees(2 * np.arcsin(np.minimum(chord / np.sqrt(8), 1))))


def _rotations(pose: Floats) -> NDArray[np.float64]:
    """``pose[T, 4, 4]`` to checked rotations ``[T, 3, 3]``, float64."""
    if pose.ndim != 3 or pose.shape[1:] != (4, 4):
        raise ValueError(f"pose must be [T, 4, 4], not {list(pose.shape)}")
    R = np.asarray(pose[:, :3, :3], dtype=np.float64)
    error = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    if (error > 1e-3).any():
        frame = int(np.flatnonzero(error > 1e-3)[0])
        raise ValueError(f"the rotation of frame {frame} is not orthonormal (error {error[frame]:.3g}); is it scaled?")
    return R
