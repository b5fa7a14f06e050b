"""The configuration of what a model is trained on: which fields, which reference frame, which loss weight."""

from typing import Literal

from pydantic import Field

from faceloom.config import Section
from shards.motion_weight import Variant
from shards.schema import LATENT_HEIGHT, LATENT_WIDTH
from training.encode_config import Layout


class DataConfig(Section):
    """Which data are read, and how."""

    layer: str = "latents"
    """The layer of latents, see `faceloom encode --layer`."""
    layout: Layout = "contiguous49"
    """Must be the one that the layer was encoded with."""
    face_tokens: Literal["siglip", "patches"] = "siglip"
    """The encoder of the face tokens that are accepted. ``patches`` are no embedding but pixels: for trials without it."""
    shrink: Literal[1, 3, 5, 15] = 1
    """Cells are this many times as wide and high, for machines without a GPU; only with the codec ``pixels``, see
    :mod:`training.shrink`. 60×90 cells become 20×30, 12×18 or 4×6."""
    threads: int = Field(2, ge=1)
    """Threads that read, on each rank; one more prepares what they read."""
    prefetch_mib: int = Field(512, ge=1)
    """Memory for what is read ahead, on each rank."""
    max_damaged_share: float = Field(0.001, ge=0, le=1)
    """Damaged samples are replaced by others, and named; more than this share of them ends the run."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the latents that the model sees."""
        return LATENT_HEIGHT // self.shrink, LATENT_WIDTH // self.shrink


class ReferenceConfig(Section):
    """The reference image: the picture that is to be animated."""

    frame: Literal["stored", "first", "random_in_clip"] = "stored"
    """``stored``: the frame that curation chose at random in the clip, whose moments the layer holds. ``first``: frame 0.
    ``random_in_clip``: another one each time the sample is seen. The last two decode the sample's video while training.
    A sample holds no frame of its track outside its 49, so the reference cannot come from farther away."""
    noise: bool = False
    """Add Gaussian noise to the pixels before encoding, with ln σ ~ N(−3, 0.5) for values in [−1, 1], as CogVideoX's
    image-to-video fine-tuning does. The image is then encoded while training. SkyReels-A1's inference gives a clean one."""
    dropout: float = Field(0.05, ge=0, le=1)
    """Share of samples whose reference latent is zero; 0.05 is that of CogVideoX's image-to-video fine-tuning."""

    @property
    def of_pixels(self) -> bool:
        """Whether references are encoded while training, and not read from the layer."""
        return self.noise or self.frame != "stored"


class WeightConfig(Section):
    """The face-aware weight of the loss (SkyReels-A1 Eq. 7): see :func:`shards.motion_weight.motion_weight`."""

    variant: Variant = "norm"
    delta: float | None = Field(None, gt=0, le=1)
    """δ. Unset, it is 0.5 as in the paper, and 1 for the variants ``delta`` and ``face``."""
