"""What a picture is worth: whether it is new, and whether the face in it is sharp."""

import cv2
import numpy as np
from pydantic import Field

from faceloom.config import Section
from landmarks.landmarker import Box


class QualityConfig(Section):
    """When footage is frozen or out of focus."""

    still_change: float = Field(0.5, gt=0)
    """A picture repeats the one before if no cell of a grid of 16 × 9 changes by more than this, mean of 0 to 255. Stills
    show 0.0 to 0.5, strongly compressed or small ones too. Of a person who barely moves 3 to 8 % of the pictures do, though
    as a whole up to 90 % of them change by less than 0.3."""
    max_frozen_share: float = Field(0.3, ge=0, le=1)
    """Largest share of a window's pictures that repeat the one before."""
    min_sharpness: float = Field(30.0, ge=0)
    """Median variance of the Laplacian of the face at 112 px. Talking heads have 120 to 500, down to crf 35 and half their
    size; a blur of 1/50 of the face leaves 10 to 40."""


THUMBNAIL_WIDTH = 256
_GRID = (16, 9)
_EVEN = (64, 36)  # grain and the coder's noise average out before changes are taken
_FACE_PX = 112
_FACE_SCALE = 1.2  # of the landmarks' box, so that the whole face is in it


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """``frame`` (uint8 RGB ``[H, W, 3]``) shrunk to a width of 256 px; a narrower one as it is."""
    height, width = frame.shape[:2]
    scale = min(1.0, THUMBNAIL_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def picture_change(before: np.ndarray, after: np.ndarray) -> float:
    """The largest change of any part of the picture, 0 to 255; of two grey thumbnails, float32 ``[h, w]``.

    Parts, because a person who sits still before a still camera changes little more than noise does over the whole.
    """
    change = cv2.resize(after - before, _EVEN, interpolation=cv2.INTER_AREA)
    return float(cv2.resize(np.abs(change), _GRID, interpolation=cv2.INTER_AREA).max())


def face_sharpness(frame: np.ndarray, face: Box) -> float:
    """Variance of the Laplacian of the ``face`` in ``frame`` (uint8 RGB ``[H, W, 3]``), brought to 112 px.

    Faces of any size are compared at one, so that a large one is not called sharp for its pores; one below 112 px is
    enlarged and has the detail it has.
    """
    x, y, w, h = face.square(_FACE_SCALE, frame.shape[1], frame.shape[0])
    grey = cv2.cvtColor(np.ascontiguousarray(frame[y : y + h, x : x + w]), cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if min(w, h) >= _FACE_PX else cv2.INTER_CUBIC
    return float(cv2.Laplacian(cv2.resize(grey, (_FACE_PX, _FACE_PX), interpolation=method), cv2.CV_64F).var())
