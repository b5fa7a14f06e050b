"""The configuration of a curation run: one section a step, each beside the function it configures."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from curation.bystanders import BystanderConfig
from curation.character import CharacterConfig
from curation.continuity import ContinuityConfig
from curation.crop import CropConfig
from curation.faces import CensusConfig
from curation.flow import FlowConfig
from curation.identity import FaceConfig
from curation.identity_check import IdentityCheckConfig
from curation.insets import InsetConfig
from curation.motion import MotionConfig
from curation.occlusion import OcclusionConfig
from curation.quality import QualityConfig
from curation.sample_video import SampleVideoConfig
from curation.shots import ShotConfig
from curation.video import VideoConfig
from curation.window import WindowConfig
from faceloom.config import Section
from faceloom.errors import UserError
from faceloom.transfers import StorageConfig
from landmarks.backend import LandmarksConfig


class PoolConfig(Section):
    """The workers of a stage, what Ray reserves for each of them, and when one is replaced."""

    workers: int = Field(0, ge=0)
    """0 means as many as the cluster has room for, also when nodes come or go. A number is asked for, and waited for."""
    cpus: float = Field(0.5, gt=0)
    """Half a CPU by default, and for flow too: where both pools share the CPUs, a clip is in one of them at a time."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Further resources of Ray that a node must offer, to place the pool: ``{face_node: 0.01}``."""
    deadline_s: float = Field(gt=0)
    """Seconds that one call may take; then its worker is killed, and after a second time the clip has failed."""
    memory_mib: int = Field(gt=0)
    """Resident memory beyond which a worker gives up the clip it is at; after a second time the clip has failed."""
    recycle_mib: int = Field(gt=0)
    """Resident memory beyond which a worker is replaced after its clip: decoders and models leak."""
    recycle_clips: int = Field(1000, ge=1)
    """Calls after which a worker is replaced."""

    @property
    def needs(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {"CPU": self.cpus, **self.resources}


class FacePoolConfig(PoolConfig):
    """The workers of the face stage."""

    deadline_s: float = Field(300.0, gt=0)
    deadline_s_per_gigapixel: float = Field(600.0, ge=0)
    """Seconds more for every 10⁹ pixels in the frames of the clip's span: a minute of 720p at 25 fps has 1.4."""
    memory_mib: int = Field(6144, gt=0)
    recycle_mib: int = Field(3072, gt=0)


class FlowPoolConfig(PoolConfig):
    """The workers of the flow stage. Every sample is of one size, so that they need no allowance for it."""

    gpus: float = Field(0.0, ge=0)
    deadline_s: float = Field(3600.0, gt=0)
    memory_mib: int = Field(16384, gt=0)
    recycle_mib: int = Field(12288, gt=0)

    @property
    def needs(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {**super().needs, "GPU": self.gpus}


class RunConfig(Section):
    """The Ray run: pools, blocks, admission."""

    face: FacePoolConfig = FacePoolConfig()
    flow: FlowPoolConfig = FlowPoolConfig()
    block_clips: int = Field(256, ge=1)
    """Clips of the manifest whose kept ones make one shard."""
    held_mib: int = Field(4096, ge=1)
    """Memory for samples in work or waiting for their shard. When it is spent, only the oldest block goes on."""
    wait_s: float = Field(900.0, gt=0)
    """Seconds that a pool may have clips and no worker before the run ends: time for an autoscaler to bring nodes."""


class CurationConfig(Section):
    """What ``faceloom curate`` reads from ``--config`` and ``--set``."""

    part: ClassVar[str] = "curate"

    video: VideoConfig = VideoConfig()
    shots: ShotConfig = ShotConfig()
    continuity: ContinuityConfig = ContinuityConfig()
    census: CensusConfig = CensusConfig()
    character: CharacterConfig = CharacterConfig()
    bystanders: BystanderConfig = BystanderConfig()
    inset: InsetConfig = InsetConfig()
    occlusion: OcclusionConfig = OcclusionConfig()
    identity_check: IdentityCheckConfig = IdentityCheckConfig()
    quality: QualityConfig = QualityConfig()
    window: WindowConfig = WindowConfig()
    motion: MotionConfig = MotionConfig()
    landmarks: LandmarksConfig = LandmarksConfig()
    crop: CropConfig = CropConfig()
    sample_video: SampleVideoConfig = SampleVideoConfig()
    flow: FlowConfig = FlowConfig()
    face: FaceConfig = FaceConfig()
    run: RunConfig = RunConfig()
    storage: StorageConfig = StorageConfig()


def recorded_config(tree: Mapping[str, Any]) -> CurationConfig:
    """The configuration in a dataset's record (``DatasetRecord.config``), which also says where the dataset came from.

    What the record leaves out because it decides nothing has its default. Raises :class:`UserError` if the record was
    written by a version whose settings this one does not know.
    """
    sections = {name: dict(tree[name]) for name in CurationConfig.model_fields if name in tree}
    sections["run"] = {name: value for name, value in sections.get("run", {}).items() if name in RunConfig.model_fields}
    try:
        return CurationConfig.model_validate(sections)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the dataset was curated under settings that this version does not know ({key}: {first['msg']}); "
            "use the version that wrote it, or curate again"
        ) from None
