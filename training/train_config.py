"""The configuration of ``faceloom train``: one section a concern, each beside what it configures; stages are data."""

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from faceloom.config import Section
from training.checkpoint_config import CheckpointConfig
from training.codec import CodecConfig
from training.data_config import DataConfig, ReferenceConfig, WeightConfig
from training.metrics_config import MetricsConfig
from training.model_config import ModelConfig
from training.parallel_config import ParallelConfig
from training.validation_config import EmaConfig, ValidationConfig


class StageConfig(Section):
    """One stage: what is trained, for how long, on what input."""

    name: str = Field(pattern=r"[a-z][a-z0-9_]*")
    steps: int = Field(ge=1)
    lr: float = Field(gt=0)
    """Reached after ``warmup_steps`` and then constant, until the last ``decay_share`` of the steps."""
    warmup_steps: int = Field(0, ge=0)
    decay_share: float = Field(0.0, ge=0, le=1)
    """Over this share of the steps, the last ones, the rate falls linearly towards 0. The paper names no decay."""
    trainable: tuple[str, ...] = Field(min_length=1)
    """Regular expressions; a parameter is trained if one of them matches the beginning of its name."""
    landmarks: Literal["cached", "rendered"] = "cached"
    """``cached``: the latents of the dataset's layer. ``rendered``: drawings, through the landmark guider, which a stage
    that trains the guider needs."""
    face_dropout: float = Field(0.1, ge=0, le=1)
    """Share of samples whose face tokens are zero, for classifier-free guidance."""
    landmark_dropout: float = Field(0.0, ge=0, le=1)
    """Share of samples whose landmark latents are zero."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """``ddp``: every GPU holds the model, for stages that train little of it. ``fsdp``: parameters, gradients and
    optimizer are sharded."""

    @field_validator("trainable")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    def trains(self, parameter: str) -> bool:
        """Whether the parameter of this name is trained."""
        return any(re.match(pattern, parameter) for pattern in self.trainable)


class BatchConfig(Section):
    """How many samples an optimizer step takes, and how many at a time."""

    size: int = Field(512, ge=1)
    """Samples a step, over all ranks."""
    micro: int = Field(1, ge=1)
    """Samples a rank takes at a time; their gradients add up until the step has all."""


class OptimizerConfig(Section):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip_grad_norm: float = Field(1.0, gt=0)


class TrainConfig(Section):
    """What ``faceloom train`` reads from ``--config`` and ``--set``."""

    part: ClassVar[str] = "train"

    seed: int = 0
    """Of the order of samples and of all that is drawn for them."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """What the model computes in. Trained parameters, gradients' sums, loss and noise are float32 either way."""
    model: ModelConfig = ModelConfig()
    codec: CodecConfig = CodecConfig(codec="vae")
    """The one that the latents were encoded with; another one is refused."""
    data: DataConfig = DataConfig()
    reference: ReferenceConfig = ReferenceConfig()
    weight: WeightConfig = WeightConfig()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    metrics: MetricsConfig = MetricsConfig()
    validation: ValidationConfig = ValidationConfig()
    ema: EmaConfig = EmaConfig()

    @model_validator(mode="after")
    def _stages_fit(self) -> "TrainConfig":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have the same name: {', '.join(names)}")
        return self

    @property
    def deciding(self) -> dict[str, object]:
        """What of it decides the weights that come out: all but where and how the work is done and watched."""
        return self.model_dump(
            mode="json",
            exclude={
                "codec": {"device", "slicing"},
                "data": {"threads", "prefetch_mib"},
                "batch": {"micro"},
                "parallel": True,
                "checkpoint": True,
                "metrics": True,
                "validation": True,
            },
        )
