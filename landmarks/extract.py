"""The face that a driving video or a portrait shows, as a record.

For footage that is known to show one person. Which face to take where there are several, and whether the footage is fit for
training, is what curation decides.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from faceloom.errors import UserError
from landmarks.geometry import CanonicalFace, metric_landmarks
from landmarks.landmarker import TILE_OVERLAP, TILES, Box, Face, Landmarker, tile_regions
from landmarks.record import BLENDSHAPES, POINTS, LandmarkRecord


def extract(frames: Iterable[NDArray[np.uint8]], landmarker: Landmarker, canonical: CanonicalFace) -> LandmarkRecord:
    """The record of the largest face in the first of ``frames`` that shows one, followed through the rest.

    Frames are uint8 RGB ``[H, W, 3]``, all of one size, which may be any; a portrait is one frame. Each is searched around
    the face's last position, else everywhere. A frame without a face is NaN and not ``found``. Nothing is smoothed.
    Raises :class:`UserError` if no frame shows a face; it knows no file name, so the caller adds it.
    """
    points, blendshapes = [], []
    width = height = 0
    last: Box | None = None
    for frame in frames:
        height, width = frame.shape[:2]
        face = landmarker.follow(frame, last) if last else None
        face = face or next(iter(faces_of(frame, landmarker)), None)
        points.append(face.points if face else np.full((POINTS, 3), np.nan, np.float32))
        blendshapes.append(face.blendshapes if face else np.full(BLENDSHAPES, np.nan, np.float32))
        last = face.box if face else last
    if last is None:
        raise UserError(
            "no face is found; it must look towards the camera and fill a tenth of the picture's height or more"
        )
    return measured_record(np.stack(points), np.stack(blendshapes), width, height, canonical)[0]


def measured_record(
    points: NDArray[np.float32], blendshapes: NDArray[np.float32], width: int, height: int, canonical: CanonicalFace
) -> tuple[LandmarkRecord, NDArray[np.float32]]:
    """The record of ``points[T, 478, 3]`` and ``blendshapes[T, 52]`` with its poses, and the metric points (cm).

    Points are normalised to a frame of ``width`` × ``height`` px; NaN where there is no face. The metric points are those
    of :func:`landmarks.geometry.metric_landmarks`, ``[T, 478, 3]``.
    """
    pose, metric = metric_landmarks(points, width, height, canonical)
    found = np.asarray(np.isfinite(pose).all(axis=(1, 2)))
    return LandmarkRecord(points, blendshapes, pose, found, width, height), metric


def faces_of(frame: NDArray[np.uint8], landmarker: Landmarker, *, small: bool = False) -> list[Face]:
    """The faces of ``frame`` (uint8 RGB ``[H, W, 3]``), the largest first.

    Its tiles are searched only where the whole shows none, or with ``small``: otherwise faces below a fifth of the frame's
    height are missed beside a larger one.
    """
    height, width = frame.shape[:2]
    distinct: list[Face] = []
    for regions in ([(0, 0, width, height)], tile_regions(width, height, TILES, TILE_OVERLAP)):
        if distinct and not small:
            break
        seen = [face for region in regions for face in landmarker.faces(frame, region)]
        # Tiles invent faces, and cut others in two: a face counts when a look around it finds it again.
        again = [landmarker.follow(frame, face.box) for face in seen]
        for face in sorted((face for face in again if face is not None), key=lambda face: -face.box.area):
            if not any(face.box.continues(other.box) for other in distinct):
                distinct.append(face)
    return sorted(distinct, key=lambda face: -face.box.area)
