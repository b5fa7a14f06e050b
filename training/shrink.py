"""Latents of the codec ``pixels`` with larger cells, for machines without a GPU.

A latent of that codec holds the mean colour of its cell and where in the cell the light is. So do these, of cells that are
``shrink`` times as wide and high: what the codec would make of a video with fewer pixels. Means of the latents would keep the
colour and lose where the light is: half of what can be seen.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.pixels import ACROSS, DETAIL_GAIN, DOWN, LUMA, LUMA_GAIN


def shrunk(latents: Tensor, shrink: int) -> Tensor:
    """``latents`` [..., 16, F, h, w] of the codec ``pixels`` → [..., 16, F, h/shrink, w/shrink], in their dtype.

    Computed in float32, and linear. Raises ``ValueError`` unless ``shrink`` divides h and w.
    """
    if latents.shape[-2] % shrink or latents.shape[-1] % shrink:
        raise ValueError(f"a grid of {latents.shape[-2]}×{latents.shape[-1]} cells cannot be shrunk by {shrink}")
    if shrink == 1:
        return latents
    fine = latents.float()
    light = fine.narrow(-4, LUMA.start, 4) / LUMA_GAIN
    light = (light.narrow(-4, 0, 4).unflatten(-4, (2, 2))).mean(-4)  # of two frames each, as the detail is
    across = fine.narrow(-4, ACROSS.start, 2) / DETAIL_GAIN
    down = fine.narrow(-4, DOWN.start, 2) / DETAIL_GAIN
    columns = torch.stack([light + across, light - across], -1).flatten(-2)
    rows = torch.stack([light + down, light - down], -2).flatten(-3, -2)
    left, right = _means(columns, shrink, shrink).unflatten(-1, (-1, 2)).unbind(-1)
    upper, lower = _means(rows, shrink, shrink).unflatten(-2, (-1, 2)).unbind(-2)
    means = _means(fine.narrow(-4, 0, ACROSS.start), shrink, shrink)
    coarse = torch.cat([means, DETAIL_GAIN / 2 * (left - right), DETAIL_GAIN / 2 * (upper - lower)], dim=-4)
    return coarse.to(latents.dtype)


def _means(values: Tensor, height: int, width: int) -> Tensor:
    """Means over blocks of the last two axes."""
    flat = functional.avg_pool2d(values.flatten(0, -3), (height, width))
    return flat.view(*values.shape[:-2], *flat.shape[-2:])
