"""Hands and microphones before a face: the landmarker goes on guessing behind them, but the colours of the skin change."""

import cv2
import numpy as np
from pydantic import Field

from faceloom.config import Section
from landmarks.geometry import MESH_POINTS, CanonicalFace
from landmarks.landmarker import Face


class OcclusionConfig(Section):
    """When something stands before a face."""

    max_point_change: float = Field(20.0, gt=0)
    """Levels by which a point of nose, cheeks and chin may differ from its median over the window, after the change of the
    forehead is taken off."""
    max_point_share: float = Field(0.3, gt=0, lt=1)
    """A frame is occluded when more than this share of the points differ; of talking heads 0 to 6 % of a window's frames."""
    max_occluded_share: float = Field(0.2, ge=0, le=1)
    """Largest share of a window's frames that may be."""


_SIDE = 112  # px of the face box that colours are read at: pores and grain do not count
_MARGIN = 0.1
_BLUR_PX = 2.0


def skin_points(canonical: CanonicalFace) -> tuple[np.ndarray, np.ndarray]:
    """Points of the mesh on nose, cheeks and chin, and those on the forehead, as indices.

    Neither eyes and lips, which move, nor the rim of the face, where a turn of the head shows what is behind it.
    """
    x, y, z = canonical.vertices[:MESH_POINTS].T
    front = (np.abs(x) < 5.0) & (y > -7.0) & (y < 1.0) & (z > 1.0)
    lips = (np.abs(x) < 2.6) & (y > -4.6) & (y < -2.6) & (z > 4.0)
    forehead = (np.abs(x) < 4.5) & (y > 1.8) & (y < 6.0)
    return np.flatnonzero(front & ~lips), np.flatnonzero(forehead)


def skin_colours(frame: np.ndarray, face: Face, points: np.ndarray) -> np.ndarray:
    """The colours of ``frame`` (uint8 RGB ``[H, W, 3]``) at the ``points[P]`` of ``face``: float32 ``[P, 3]``."""
    height, width = frame.shape[:2]
    scale = _SIDE / max(face.box.width, face.box.height)
    corner = np.array([face.box.x0 - _MARGIN * face.box.width, face.box.y0 - _MARGIN * face.box.height])
    side = round(_SIDE * (1 + 2 * _MARGIN))
    placed = np.column_stack([scale * np.eye(2), -scale * corner])
    small = cv2.warpAffine(frame, placed, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.GaussianBlur(small, (0, 0), _BLUR_PX)
    at = np.clip(((face.points[points, :2] * [width, height] - corner) * scale).round().astype(int), 0, side - 1)
    return np.asarray(small[at[:, 1], at[:, 0]], np.float32)


def occluded(skin: np.ndarray, forehead: np.ndarray, config: OcclusionConfig) -> np.ndarray:
    """Which frames have something before the face; bool ``[T]``.

    ``skin[T, P, 3]`` and ``forehead[T, Q, 3]`` are colours, NaN without a face. What is usual over the frames is taken for
    the face, so a window that is mostly covered is told by the frames that are not.
    """
    found = np.isfinite(skin).all(axis=(1, 2))
    result = np.zeros(len(skin), bool)
    if found.any():
        change, light = (colours[found] - np.median(colours[found], axis=0) for colours in (skin, forehead))
        # Light changes the forehead too, which is seldom covered. The skin's own median would take a hand for light.
        change -= np.median(light, axis=1, keepdims=True)
        result[found] = (np.abs(change).max(axis=2) > config.max_point_change).mean(axis=1) > config.max_point_share
    return result
