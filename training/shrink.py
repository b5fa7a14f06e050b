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
    luma = fine[..., LUMA, :, :, :] / LUMA_GAIN
    light = (luma[..., 0::2, :, :, :] + luma[..., 1::2, :, :, :]) / 2  # of two frames each, as the detail is
    across = fine[..., ACROSS, :, :, :] / DETAIL_GAIN
    down = fine[..., DOWN, :, :, :] / DETAIL_GAIN
    columns = _means(torch.stack([light + across, light - across], -1).flatten(-2), shrink)
    rows = _means(torch.stack([light + down, light - down], -2).flatten(-3, -2), shrink)
    details = (columns[..., 0::2] - columns[..., 1::2], rows[..., 0::2, :] - rows[..., 1::2, :])
    means = _means(fine[..., : ACROSS.start, :, :, :], shrink)
    coarse = torch.cat([means, *(DETAIL_GAIN / 2 * detail for detail in details)], dim=-4)
    return coarse.to(latents.dtype)


def _means(values: Tensor, side: int) -> Tensor:
    """Means over squares of the last two axes."""
    flat = functional.avg_pool2d(values.flatten(0, -3), side)
    return flat.view(*values.shape[:-2], *flat.shape[-2:])
