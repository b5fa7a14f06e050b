"""The square picture of a face that SMIRK looks at, as its release cuts it (``demo.py`` of georgeretsi/smirk)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats

SIDE = 224  # px
_MARGIN = 1.4  # side of the square over the mean side of the landmarks' bounding box


def face_crop(points_px: Floats) -> NDArray[np.float64]:
    """The affine map ``[2, 3]`` from px of the crop to px of the frame, around the landmarks ``points_px[N, 2]``.

    The corners of the square meet the *centres* of the crop's corner pixels, 0 and 223; SMIRK learned it that way.
    """
    low, high = points_px.min(axis=0).astype(np.float64), points_px.max(axis=0).astype(np.float64)
    size = int(_MARGIN * (high - low).mean())
    corner = (low + high) / 2 - size / 2
    return np.hstack([np.eye(2) * size / (SIDE - 1), corner[:, None]])


def cut(frame: NDArray[np.uint8], crop: Floats) -> NDArray[np.uint8]:
    """The crop of ``frame[H, W, 3]``, ``[224, 224, 3]``: bilinear, black outside the frame, fractions cut off."""
    sampled = cv2.warpAffine(
        frame.astype(np.float32),
        np.asarray(crop, dtype=np.float64),
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return np.asarray(sampled, dtype=np.uint8)
