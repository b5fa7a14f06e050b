"""Latents as the model has them, back into frames to look at."""

from collections.abc import Callable

import cv2
import numpy as np
from torch import Tensor

from shards.schema import HEIGHT, WIDTH


def whole_frames(decode: Callable[[np.ndarray], np.ndarray], latents: Tensor, scale: float) -> np.ndarray:
    """Latents [1, F, 16, h, w], ``scale`` times those of a codec → frames uint8 [4F−3, 480, 720, 3].

    ``decode`` is one of the codec's decoders. Of shrunken latents (:mod:`training.shrink`) it makes smaller frames, which are
    then enlarged.
    """
    frames = decode((latents[0].float() / scale).transpose(0, 1).contiguous().cpu().numpy())
    if frames.shape[1:3] == (HEIGHT, WIDTH):
        return frames
    return np.stack([cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for frame in frames])
