"""What the SMIRK backend stores of a clip: FLAME's parameters, identity kept apart from pose and expression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPE = 300
# Where each group lies among the 61 parameters of a frame.
POSE = slice(0, 3)  # axis-angle rotation of the head
CAMERA = slice(3, 6)  # weak perspective: scale, x, y
EXPRESSION = slice(6, 56)
EYELIDS = slice(56, 58)  # left, right; 0..1
JAW = slice(58, 61)  # axis-angle
PARAMETERS = 61


@dataclass(frozen=True, eq=False)
class SmirkMotion:
    """The 361 parameters of SMIRK and FLAME over T frames: 61 a frame, and one shape for the clip.

    The shape is the median over the clip, because a shape of each frame's own would put jitter of identity into the
    landmarks. Raises ``ValueError`` if a shape, a dtype or a number is wrong.
    """

    parameters: NDArray[np.float32]  # [T, 61]
    shape: NDArray[np.float32]  # [300]
    crop: NDArray[np.float32]  # [T, 2, 3] px of SMIRK's 224 px crop to px of the source frame

    def __post_init__(self) -> None:
        frames = len(self.parameters)
        expected = {"parameters": (frames, PARAMETERS), "shape": (SHAPE,), "crop": (frames, 2, 3)}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(f"{name} must be float32{list(shape)}, not {array.dtype}{list(array.shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds a value that is not finite")

    def __len__(self) -> int:
        return len(self.parameters)

    def frames(self, index: slice | NDArray[np.integer]) -> "SmirkMotion":
        """The motion of some frames; a slice or frame numbers."""
        return SmirkMotion(self.parameters[index], self.shape, self.crop[index])
