"""The choice of codec: what turns the pictures of a sample into the latents a model is trained on, and back."""

from typing import Literal, Protocol

import numpy as np

from faceloom.config import Section
from faceloom.device import Device


class CodecConfig(Section):
    """Which codec encodes, and how. Everything but ``slicing`` and ``device`` is part of the fingerprint."""

    codec: Literal["pixels", "vae"] = "pixels"
    """``pixels``: a thumbnail video, no network; ``vae``: the autoencoder of CogVideoX, what SkyReels-A1 trains on."""
    vae_model: str = "THUDM/CogVideoX-5b-I2V"
    """A folder (of the VAE, or of a pipeline with ``vae/`` in it), or the id of a pipeline that is already in the Hugging
    Face cache: nothing is downloaded during a run."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """What the VAE computes in. Latents are stored as bfloat16 either way."""
    tiling: bool = False
    """Encode overlapping tiles and blend them: less memory, slightly other latents."""
    slicing: bool = False
    """Take the videos of a batch one by one. A sample is encoded video by video anyway, so this changes nothing there."""
    device: Device = "auto"


class Codec(Protocol):
    """Pictures to latents and back. Sizes follow from the input: 49 frames of 480×720 give latents [13, 60, 90].

    Pictures are uint8 RGB with sides that are multiples of 8, and 4k+1 of them make a video; anything else raises
    ``ValueError``. Latents are not multiplied by a scaling factor. Encoders return the bits, uint16, of bfloat16 numbers:
    :func:`training.latents.bfloat16_values` gives the numbers.
    """

    name: str
    moment_channels: int  # 16, or 32 where a log-variance follows the mean

    @property
    def fingerprint(self) -> str:
        """Sha256 over everything that decides the latents of given pictures."""

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """``frames`` [4F−3, 8h, 8w, 3] → moments [``moment_channels``, F, h, w]."""

    def encode_landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Drawn landmarks ``frames`` [4F−3, 8h, 8w, 3] → latents [16, F, h, w], the mode of their distribution."""

    def encode_reference(self, image: np.ndarray) -> np.ndarray:
        """``image`` [8h, 8w, 3] → moments [``moment_channels``, 1, h, w]."""

    def decode_landmarks(self, latents: np.ndarray) -> np.ndarray:
        """``latents`` float32 [16, F, h, w] of drawn landmarks → frames uint8 [4F−3, 8h, 8w, 3]."""

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """``latents`` float32 [16, F, h, w] → frames uint8 [4F−3, 8h, 8w, 3]."""


def load_codec(config: CodecConfig) -> Codec:
    """The codec that ``config`` names. Raises :class:`UserError` if its model cannot be had."""
    if config.codec == "vae":
        from training.vae import VaeCodec

        return VaeCodec(
            config.vae_model, config.dtype, tiling=config.tiling, slicing=config.slicing, device=config.device
        )
    from training.pixels import PixelsCodec

    return PixelsCodec()
