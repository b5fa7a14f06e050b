"""The configuration of a curation run: one section a step, each beside the function it configures."""

from pydantic import Field

from curation.character import CharacterConfig
from curation.crop import CropConfig
from curation.faces import CensusConfig
from curation.flow import FlowConfig
from curation.identity import FaceConfig
from curation.motion import MotionConfig
from curation.sample_video import SampleVideoConfig
from curation.video import VideoConfig
from curation.window import WindowConfig
from faceloom.config import Section


class PoolConfig(Section):
    """One pool of workers and what Ray reserves for each of them."""

    workers: int = Field(0, ge=0)
    """0 means as many as the cluster's resources allow."""
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)


class RunConfig(Section):
    """The Ray run: pools, blocks, admission."""

    face: PoolConfig = PoolConfig()
    flow: PoolConfig = PoolConfig()
    block_clips: int = Field(256, ge=1)
    """Clips of the manifest whose kept ones make one shard."""
    held_mib: int = Field(1024, ge=1)
    """Samples that may wait, finished or in work, for their shard; more admission waits for a shard to be written."""


class CurationConfig(Section):
    """What ``faceloom curate`` reads from ``--config`` and ``--set``."""

    video: VideoConfig = VideoConfig()
    census: CensusConfig = CensusConfig()
    character: CharacterConfig = CharacterConfig()
    window: WindowConfig = WindowConfig()
    motion: MotionConfig = MotionConfig()
    crop: CropConfig = CropConfig()
    sample_video: SampleVideoConfig = SampleVideoConfig()
    flow: FlowConfig = FlowConfig()
    face: FaceConfig = FaceConfig()
    run: RunConfig = RunConfig()
