"""Pictures into latents inside the training loop: drawn landmarks with gradients, reference frames without.

Pixels are floats in [-1, 1], [B, 3, 4F−3, 8h, 8w] in R, G, B; latents are [B, C, F, h, w]. The stored latents of
:mod:`training.codec` come from the same arithmetic.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.codec import CodecConfig
from training.latents import CELL, CHANNELS, STRIDE
from training.pixels import BLACK, CHROMA_GAIN, DETAIL_GAIN, DRAWING_GAIN, LUMA_GAIN, QUARTER
from training.shrink import shrunk
from training.vae import load_vae, read_config
from training.whereabouts import Whereabouts

_FRAMES_AT_A_TIME = 8
"""``num_sample_frames_batch_size`` of diffusers' AutoencoderKLCogVideoX: another number gives other latents."""


class LandmarkGuider(Whereabouts):
    """The encoder of a CogVideoX VAE, trainable: the guider of SkyReels-A1 (§3.2), whose decoder half is never used.

    Gradients reach every parameter, named ``encoder.*`` as in the VAE. What the encoder computes inside is not kept for the
    backward pass but computed again, eight frames at a time: for 49 frames of 480×720 in bfloat16 that leaves 30 GiB of the
    112 GiB, 21 of them while a group is computed again and 8 for the caches between groups.
    """

    def __init__(self, encoder: nn.Module, scaling_factor: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.scaling_factor = scaling_factor

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` [B, 3, 4F−3, 8h, 8w] → latents [B, 16, F, h, w]: the mode, times the VAE's scaling factor."""
        moments = _encode(self.encoder, pixels.to(self.dtype))
        latents: Tensor = self.scaling_factor * moments[:, :CHANNELS]
        return latents


class PixelsGuider(Whereabouts):
    """A stand-in for machines without the VAE: the latents of the codec ``pixels`` plus a convolution that starts at zero.

    It has something to train where the real guider has an encoder, and no claim beyond that. ``grid`` is (h, w) of the
    latents it returns; where that is coarser than cells of 8×8 px, they are :func:`training.shrink.shrunk`.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.conv = nn.Conv3d(CHANNELS, CHANNELS, kernel_size=3, padding=1)
        nn.init.zeros_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` [B, 3, 4F−3, H, W] → latents [B, 16, F, *grid]."""
        latents = drawing_latents(pixels)
        latents = shrunk(latents, latents.shape[-2] // self.grid[0]).to(self.conv.weight.dtype)
        learned: Tensor = self.conv(latents)
        return latents + learned


class PictureEncoder(nn.Module):
    """The codec of the stored latents, for pictures that change while training, such as a reference with noise on it.

    Frozen. Raises :class:`UserError` if the codec's model cannot be had.
    """

    def __init__(self, codec: CodecConfig) -> None:
        super().__init__()
        self.vae = None
        if codec.codec == "vae":
            self.vae = load_vae(codec.vae_model, codec.dtype)
            self.vae.decoder = None
            if codec.tiling:
                self.vae.enable_tiling()
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` [B, 3, 4F−3, 8h, 8w] → moments float32 [B, 16 or 32, F, h, w], unscaled, as the dataset stores them."""
        if self.vae is None:
            return pixel_latents(pixels)
        moments: Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.parameters
        return moments.float()


def latent_scale(codec: CodecConfig) -> float:
    """What stored latents are multiplied by before the transformer sees them: the VAE's scaling factor; 1 for ``pixels``."""
    return float(read_config(codec.vae_model)["scaling_factor"]) if codec.codec == "vae" else 1.0


def pixel_latents(pixels: Tensor) -> Tensor:
    """What :class:`training.pixels.PixelsCodec` makes of the same frames, before its rounding to bfloat16.

    ``pixels`` [B, 3, 4F−3, 8h, 8w] → float32 [B, 16, F, h, w].
    """
    # Means first: there are 16 times as many pixels. Not by `avg_pool3d`, which copies frames that lie as stored.
    *outer, height, width = pixels.shape
    fine = pixels.reshape(*outer, height // QUARTER, QUARTER, width // QUARTER, QUARTER)
    quarters = fine.mean(dim=(-1, -3), dtype=torch.float32)
    r, g, b = (((quarters + 1) * 127.5 - 128) / 128).unbind(1)
    luma, orange, green = (r + 2 * g + b) / 4, (r - b) / 2, (2 * g - r - b) / 4
    rows = luma[..., 0::2] + luma[..., 1::2]
    columns = luma[..., 0::2, :] + luma[..., 1::2, :]
    across = (columns[..., 0::2] - columns[..., 1::2]) / 4
    down = (rows[..., 0::2, :] - rows[..., 1::2, :]) / 4

    channels = [
        gain * _by_latent(functional.avg_pool2d(colour, CELL // QUARTER))
        for gain, colour in ((LUMA_GAIN, luma), (CHROMA_GAIN, orange), (CHROMA_GAIN, green))
    ]
    channels += [DETAIL_GAIN * _halves(_by_latent(detail)) for detail in (across, down)]
    return torch.cat(channels, dim=1)


def drawing_latents(pixels: Tensor) -> Tensor:
    """As :func:`pixel_latents`, for drawn landmarks: what ``encode_landmarks`` of the codec makes of them."""
    latents = pixel_latents(pixels)
    return DRAWING_GAIN * (latents - torch.from_numpy(BLACK).to(latents.device))


def _by_latent(values: Tensor) -> Tensor:
    """One value a frame [B, 4F−3, h, w] → a channel for each of a latent's frames [B, 4, F, h, w]; frame 0 fills latent 0."""
    filled = torch.cat([values[:, :1].expand(-1, STRIDE - 1, -1, -1), values], dim=1)
    return filled.reshape(len(filled), -1, STRIDE, *filled.shape[2:]).transpose(1, 2)


def _halves(channels: Tensor) -> Tensor:
    """Means of the first and the second two of a latent's frames: [B, 4, F, h, w] → [B, 2, F, h, w]."""
    return (channels[:, 0::2] + channels[:, 1::2]) / 2


def _encode(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """Moments [B, 32, F, h, w] from the same groups of frames as ``AutoencoderKLCogVideoX.encode`` takes, and its caches.

    That method would keep the activations of all groups for the backward pass.
    """
    frames = pixels.shape[2]
    edges = [0, *range(_FRAMES_AT_A_TIME + frames % _FRAMES_AT_A_TIME, frames, _FRAMES_AT_A_TIME), frames]
    cache = None
    moments = []
    for start, end in itertools.pairwise(edges):
        group = pixels[:, :, start:end]
        if torch.is_grad_enabled():
            part, cache = checkpoint(encoder, group, None, cache, use_reentrant=False, preserve_rng_state=False)
        else:
            part, cache = encoder(group, None, cache)
        moments.append(part)
    return torch.cat(moments, dim=2)
