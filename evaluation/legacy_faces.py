"""What the release's scripts see in a picture: five key points, and the face aligned to them for two networks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.recognition import SIDE, TEMPLATE
from evaluation.footage import Frame
from evaluation.scrfd import Scrfd

_GREY = (128, 128, 128)
_PAD = 0.25


@dataclass(frozen=True, eq=False)
class LegacyFace:
    """``points[5, 2]`` in px of the picture, the face for ArcFace [112, 112, 3] and for the other networks [224, 224, 3]."""

    points: NDArray[np.float32]
    for_arcface: Frame
    aligned: Frame


def legacy_face(frame: Frame, detector: Scrfd) -> LegacyFace | None:
    """The largest face of ``frame`` (uint8 RGB); if there is none, that of the frame in a grey border of a quarter, or None.

    Within the border ArcFace gets the face as it lies in the bordered picture, and the others as it lies in the frame.
    """
    points = detector.largest(frame)
    if points is not None:
        return LegacyFace(points, norm_crop(frame, points, SIDE), norm_crop(frame, points, 2 * SIDE))
    height, width = frame.shape[:2]
    top, left = int(height * _PAD), int(width * _PAD)
    bordered = np.asarray(cv2.copyMakeBorder(frame, top, top, left, left, cv2.BORDER_CONSTANT, value=_GREY), np.uint8)
    points = detector.largest(bordered)
    if points is None:
        return None
    inside = points - np.array([left, top], np.float32)
    return LegacyFace(inside, norm_crop(bordered, points, SIDE), norm_crop(frame, inside, 2 * SIDE))


def norm_crop(frame: Frame, points: NDArray[np.float32], side: int) -> Frame:
    """The face uint8 ``[side, side, 3]`` in ArcFace's place, as InsightFace's ``face_align.norm_crop`` has it.

    The similarity is the one of least squares over the five points, not of the least median as in :mod:`curation`.
    """
    target = TEMPLATE * side / SIDE
    x, y = points.astype(np.float64).T
    one, none = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)])
    a, b, dx, dy = np.linalg.lstsq(rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    matrix = np.array([[a, -b, dx], [b, a, dy]])
    return np.asarray(cv2.warpAffine(frame, matrix, (side, side), borderValue=0), np.uint8)
