"""The landmark backend of SkyReels-A1's release: SMIRK's parameters on a FLAME head, under a weak-perspective camera.

Two things differ from the release. It smooths the head pose by a causal filter, which lags behind the video; here nothing is
smoothed. It fits the affine map that places a pupil by RANSAC; here all 16 points of the eye take part, by least squares.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from faceloom import models
from faceloom.fingerprint import fingerprint
from landmarks.angles import Floats
from landmarks.flame import FlameModel, read_flame, rotation_matrices
from landmarks.record import POINTS, LandmarkRecord
from landmarks.smirk_crop import SIDE
from landmarks.smirk_motion import CAMERA, EXPRESSION, EYELIDS, JAW, POSE, SmirkMotion
from landmarks.topology import EYES

if TYPE_CHECKING:
    from landmarks.smirk_encoder import SmirkEncoder

_CHECKPOINT = "smirk-encoder"
_HEAD = ("flame", "smirk-landmarks", "smirk-left-eyelid", "smirk-right-eyelid")


class SmirkBackend:
    """Landmarks of the FLAME head: 105 points of the face mesh, and the pupils 468 and 473. The others are NaN.

    A frame counts as without a face where the record's own landmarks are NaN.
    """

    name = "smirk"

    def __init__(self, flame: FlameModel) -> None:
        self._flame = flame

    def own(self, record: LandmarkRecord) -> NDArray[np.float32]:
        """The face where it is in its source frame; see :class:`landmarks.backend.Backend`.

        Raises ``ValueError`` if the record was not made by SMIRK.
        """
        motion = _motion_of(record)
        rotation = rotation_matrices(motion.parameters[:, POSE])
        return self._place(record, rotation, motion, record.width, record.height)

    def onto(self, driving: LandmarkRecord, reference: LandmarkRecord) -> NDArray[np.float32]:
        """The motion of ``driving`` on the face of ``reference``; see :class:`landmarks.backend.Backend`.

        Raises ``ValueError`` if either record was not made by SMIRK, or if ``reference`` is not one frame with a face.
        """
        motion, still = _motion_of(driving), _motion_of(reference)
        if len(reference) != 1 or not np.isfinite(reference.points).all():
            raise ValueError(f"the reference must be one frame with a face; it has {len(reference)} frames")
        R, R_ref = rotation_matrices(motion.parameters[:, POSE]), rotation_matrices(still.parameters[0, POSE])
        return self._place(driving, R_ref @ R[0].T @ R, still, reference.width, reference.height)

    def _place(
        self, driving: LandmarkRecord, rotation: Floats, target: SmirkMotion, width: int, height: int
    ) -> NDArray[np.float32]:
        """Expression and pupils of ``driving`` on the shape, camera and crop of ``target``, turned by ``rotation``.

        ``target`` has one frame or as many as ``driving``; ``width`` and ``height`` are those of its source frame.
        """
        parameters = _motion_of(driving).parameters
        head = self._flame.landmarks(
            target.shape, parameters[:, EXPRESSION], rotation, parameters[:, JAW], parameters[:, EYELIDS]
        )
        frame_px = to_frame(project(head, target.parameters[:, CAMERA]), target.crop)
        points = np.full((len(driving), POINTS, 2), np.nan)
        points[:, self._flame.numbers] = frame_px / [width, height]

        has_face = np.isfinite(driving.points).all(axis=(1, 2))
        points[~has_face] = np.nan
        seen, drawn = driving.points[has_face, :, :2], points[has_face]
        for eye in EYES:
            pupil = eye.iris[0]
            points[has_face, pupil] = carry(seen[:, pupil], seen[:, eye.contour], drawn[:, eye.contour])
        return points.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Smirk:
    """What it takes to make records with SMIRK and to draw them."""

    encoder: "SmirkEncoder"
    backend: SmirkBackend
    fingerprint: str  # of :func:`smirk_fingerprint`


def load_smirk(wanted_by: str, device: str = "cpu") -> Smirk:
    """Load encoder and backend from the user's files; ``wanted_by`` is the config key that asks for them.

    Raises :class:`faceloom.errors.UserError` that lists every missing file, or names a file that is not what it should be.
    """
    from landmarks.smirk_encoder import SmirkEncoder

    paths = models.user_paths((_CHECKPOINT, *_HEAD), wanted_by)
    return Smirk(
        encoder=SmirkEncoder(paths[_CHECKPOINT], device),
        backend=SmirkBackend(read_flame(*(paths[name] for name in _HEAD))),
        fingerprint=smirk_fingerprint(wanted_by),
    )


def smirk_fingerprint(wanted_by: str) -> str:
    """One hash over the user's files, without loading them: two people's copies need not be the same.

    Raises as :func:`load_smirk` does for missing files.
    """
    return _fingerprint((_CHECKPOINT, *_HEAD), wanted_by)


def head_fingerprint(wanted_by: str) -> str:
    """One hash over the files of :func:`load_smirk_backend`; raises as that does for missing ones."""
    return _fingerprint(_HEAD, wanted_by)


def load_smirk_backend(wanted_by: str) -> SmirkBackend:
    """Load the backend alone, for records that exist already: needs FLAME, but neither the checkpoint nor torch."""
    paths = models.user_paths(_HEAD, wanted_by)
    return SmirkBackend(read_flame(*(paths[name] for name in _HEAD)))


def project(head: Floats, camera: Floats) -> Floats:
    """Weak perspective: ``head[T, N, 3]`` under ``camera[T or 1, 3]`` (s, tx, ty) to px of SMIRK's crop, ``[T, N, 2]``.

    x' = s·(x + tx), y' = s·(y + ty); the crop spans −1 to 1, and its y axis points down.
    """
    scale, shift = camera[:, None, :1].astype(np.float64), camera[:, None, 1:]
    return np.asarray((scale * (head[..., :2] + shift) * [1, -1] + 1) / 2 * SIDE)


def to_frame(crop_px: Floats, crop: Floats) -> Floats:
    """``crop_px[T, N, 2]`` to px of the frame by the affine maps ``crop[T or 1, 2, 3]``."""
    return np.asarray(crop_px @ crop[:, :, :2].transpose(0, 2, 1) + crop[:, None, :, 2])


def carry(point: Floats, source: Floats, target: Floats) -> NDArray[np.float64]:
    """Carry ``point[T, 2]`` along with ``source[T, N, 2]`` → ``target[T, N, 2]``, by the affine map nearest to it.

    Least squares. Either side may be in any unit, also one for x and another for y: the fit is the same.
    """
    ones = np.ones((*source.shape[:2], 1))
    affine = np.linalg.pinv(np.concatenate([source, ones], axis=2, dtype=np.float64)) @ target
    return np.asarray(np.einsum("ti,tij->tj", point, affine[:, :2]) + affine[:, 2])


def _motion_of(record: LandmarkRecord) -> SmirkMotion:
    if record.smirk is None:
        raise ValueError("this record was made by the backend mediapipe; smirk draws only records that SMIRK made")
    return record.smirk


def _fingerprint(names: tuple[str, ...], wanted_by: str) -> str:
    paths = models.user_paths(names, wanted_by)
    return fingerprint(**{name: models.file_sha256(path) for name, path in paths.items()})
