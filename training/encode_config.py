"""The configuration of ``faceloom encode``."""

from typing import ClassVar, Literal

from pydantic import Field

from faceloom.config import Section
from training.codec import CodecConfig

Layout = Literal["contiguous49", "ref1+48"]
"""Which pictures the 49 of a video are. ``contiguous49``: the frames of the sample. ``ref1+48``: its reference frame, then
frames 1 to 48, which is how SkyReels-A1's inference feeds landmarks; the reference's are drawn in the style ``a1_2d``."""


class RenderConfig(Section):
    """How the landmarks are drawn that the motion of a sample is encoded from."""

    mode: Literal["self", "relative"] = "self"
    """``self``: the face where it is in each frame. ``relative``: its motion on its own reference frame, which keeps head
    position and size of that frame, as animating a portrait does."""
    style: Literal["a1_3d", "a1_2d", "fye"] = "a1_3d"
    """Whose drawings they look like; ``a1_3d`` is SkyReels-A1's."""


class EncodeRunConfig(Section):
    """The Ray run: its workers and their memory."""

    workers: int = Field(0, ge=0)
    """0 means as many as the cluster has room for, also when nodes come or go."""
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    """What Ray reserves for each worker. A worker sees only the GPUs it reserves."""
    threads: int = Field(1, ge=1)
    """Torch's threads in a worker. A VAE's last bits depend on it on CPUs, so it is part of the fingerprint."""
    held_mib: int = Field(4096, ge=1)
    """Memory for latents in work or waiting for their shard. When it is spent, only the oldest part goes on."""
    deadline_s: float = Field(3600.0, gt=0)
    """Seconds that one sample may take; then its worker is killed, and after a second time the sample has failed."""
    wait_s: float = Field(900.0, gt=0)
    """Seconds without any worker after which the run ends."""


class EncodeConfig(Section):
    """What ``faceloom encode`` reads from ``--config`` and ``--set``."""

    part: ClassVar[str] = "encode"

    codec: CodecConfig = CodecConfig()
    landmarks: RenderConfig = RenderConfig()
    layout: Layout = "contiguous49"
    run: EncodeRunConfig = EncodeRunConfig()

    @property
    def deciding(self) -> dict[str, object]:
        """What of it decides the latents: all but where and how widely the work is spread."""
        codec = self.codec.model_dump(mode="json", exclude={"device", "slicing"})
        if self.codec.codec == "pixels":
            codec = {"codec": "pixels"}
        deciding: dict[str, object] = {
            "codec": codec,
            "landmarks": self.landmarks.model_dump(mode="json"),
            "layout": self.layout,
        }
        if self.codec.codec == "vae":
            deciding["run"] = {"threads": self.run.threads}
        return deciding
