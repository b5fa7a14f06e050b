"""Latents as the model has them, back into frames to look at."""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torch.nn import functional

from shards.schema import LATENT_HEIGHT, LATENT_WIDTH


def whole_frames(decode: Callable[[np.ndarray], np.ndarray], latents: Tensor, scale: float) -> np.ndarray:
    """Latents [1, F, 16, h, w], ``scale`` times those of a codec → frames uint8 [4F−3, 480, 720, 3].

    ``decode`` is one of the codec's decoders. Shrunk latents are enlarged.
    """
    whole = functional.interpolate(latents[0].float() / scale, (LATENT_HEIGHT, LATENT_WIDTH), mode="bilinear")
    return decode(whole.transpose(0, 1).contiguous().cpu().numpy())
