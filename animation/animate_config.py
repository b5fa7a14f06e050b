"""The configuration of ``faceloom animate``."""

from typing import ClassVar

from pydantic import Field

from animation.app_config import AppConfig
from animation.driving import Motion
from animation.portrait import PortraitConfig
from curation.sample_video import SampleVideoConfig
from faceloom.config import Section
from faceloom.device import Device
from faceloom.workers import WorkersConfig
from landmarks.backend import BackendName


class LoadConfig(Section):
    """Where the model computes, and with how much memory."""

    device: Device = "auto"
    offload: bool = False
    """Keep in the GPU's memory only the network that is at work; the others wait in the machine's."""
    tiling: bool = False
    """Let the VAE work on overlapping tiles, which takes less memory."""
    siglip_model: str | None = None
    """Folder of SigLIP, for checkpoints that have none beside their other parts."""


class AnimateConfig(Section):
    """What ``faceloom animate`` and ``faceloom app`` read from ``--config`` and ``--set``."""

    part: ClassVar[str] = "animate"

    steps: int = Field(10, ge=1)
    """Of the scheduler; a divisor of 1000."""
    guidance: float = Field(3.0, ge=0)
    """How much further than without the face the model is led by it (classifier-free guidance); 1 is not at all."""
    seed: int = Field(0, ge=0, lt=2**63)
    fps: int | None = Field(None, ge=1, le=60)
    """Frames a second; None is the rate that the checkpoint was trained at."""
    overlap: int = Field(8, ge=0)
    """Frames that two windows share."""
    motion: Motion = "relative"
    landmarks: BackendName | None = None
    """None is the backend that the checkpoint was trained with."""
    portrait: PortraitConfig = PortraitConfig()
    video: SampleVideoConfig = SampleVideoConfig()
    load: LoadConfig = LoadConfig()
    batch: WorkersConfig = WorkersConfig()
    """The Ray run of ``--batch``."""
    app: AppConfig = AppConfig()
