"""The configuration of an evaluation."""

from typing import ClassVar

from pydantic import Field

from faceloom.config import Section
from faceloom.device import Device


class EvaluateConfig(Section):
    """How results are measured and shown."""

    part: ClassVar[str | None] = "evaluate"

    max_offset: int = Field(2, ge=0)
    """Frames of the result by which it may lag or lead its driver without being charged for it."""
    similarity_frames: int = Field(16, ge=1)
    """Frames, evenly spread, whose face is compared with the reference's; as many as the release takes."""
    least_fid_frames: int = Field(2048, ge=2)
    """Faces that either side of ``face_fid`` must have: with fewer than features, covariances are singular."""
    device: Device = "auto"
    """For the networks that run in torch; MediaPipe, ArcFace and the detector run on the CPU."""
    workers: int | None = Field(None, ge=1)
    """Videos measured at a time, each in a process of its own; by default one a core."""
    deadline_s: float = Field(3600.0, gt=0)
    """A video that takes longer has failed."""
    shown_videos: int = Field(24, ge=0)
    """Videos on the page, those with the worst expression first. The tables have all."""
    shown_seconds: float = Field(20.0, gt=0)
    """Of each video on the page, from its beginning."""
