"""The latent grid that every codec shares, and bfloat16 in numpy, which has no such type.

A latent cell covers 8×8 px. In time, latent 0 stands for frame 0 alone and latent k for frames 4k−3 … 4k, as in CogVideoX's
causal VAE, so 49 frames give 13 latents.
"""

import numpy as np

CELL = 8
"""Pixels per latent cell, along each side."""

STRIDE = 4
"""Frames per latent, after the first frame."""

CHANNELS = 16
"""Of a latent. A codec's moments have as many, or twice as many: mean, then log-variance."""


def check_frames(frames: np.ndarray) -> None:
    """Raise ``ValueError`` unless ``frames`` are uint8 [4k+1, H, W, 3] with H and W multiples of 8."""
    shape = frames.shape
    fits = frames.ndim == 4 and shape[0] % STRIDE == 1 and shape[3] == 3
    if frames.dtype != np.uint8 or not fits or shape[1] % CELL or shape[2] % CELL:
        raise ValueError(f"expected frames uint8 [4k+1, 8h, 8w, 3], got {frames.dtype} {list(shape)}")


def check_latents(latents: np.ndarray) -> None:
    """Raise ``ValueError`` unless ``latents`` are float32 [16, F, h, w]."""
    if latents.dtype != np.float32 or latents.ndim != 4 or latents.shape[0] != CHANNELS:
        raise ValueError(f"expected latents float32 [16, F, h, w], got {latents.dtype} {list(latents.shape)}")


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """The bits, uint16, of the bfloat16 numbers nearest to float32 ``values``; ties go to the even one.

    Raises ``ValueError`` for NaN or infinity, whose bits rounding could turn into a number.
    """
    if not np.isfinite(values).all():
        raise ValueError("the latents hold a value that is not finite")
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    to_even = (bits >> 16) & 1
    return ((bits + np.uint32(0x7FFF) + to_even) >> 16).astype(np.uint16)


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers behind ``bits`` uint16; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
