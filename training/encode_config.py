"""The configuration of ``faceloom encode``."""

from typing import ClassVar, Literal

from pydantic import Field

from faceloom.config import Section
from faceloom.workers import WorkersConfig
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


class EncodeRunConfig(WorkersConfig):
    """The Ray run: its workers and their memory. ``threads`` is part of the fingerprint of what a VAE encodes."""

    held_mib: int = Field(4096, ge=1)
    """Memory for latents in work or waiting for their shard. When it is spent, only the oldest part goes on."""


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
