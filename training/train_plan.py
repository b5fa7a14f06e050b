"""What a training run will take: parameters, memory, operations and hours of each stage, before any weight is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from faceloom.errors import UserError
from shards.schema import FACE_DIM, FACE_TOKENS, FRAMES, HEIGHT, LATENT_HEIGHT, LATENT_WIDTH, WIDTH
from training.flops import count_flops, forward_flops, peak_flops
from training.guider import LandmarkGuider
from training.memory import Activations, encoder_activations, states, transformer_activations
from training.model import PortraitModel, build_model
from training.train_config import StageConfig, TrainConfig

_GUIDER_FRAMES = 9
"""The most drawings that the guider takes at a time."""


@dataclass(frozen=True)
class Machines:
    """What the run is planned for."""

    gpus: int
    kind: str
    """As torch or the shop calls it, e.g. ``A800``."""
    utilisation: float
    """Share of the peak that the GPUs sustain, what is computed twice included. A guess, until a run has shown it."""
    peak: float | None
    """Operations a second of one GPU; None: unknown."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. Bytes and seconds are estimates; the rest is counted."""

    name: str
    steps: int
    strategy: Literal["ddp", "fsdp"]
    parameters: int
    trained: int
    tokens: int
    """Of a sample, in the transformer."""
    sample_flops: int
    """Forward and backward; what MFU counts."""
    recomputed_flops: int
    """For a sample, what activation checkpointing does a second time."""
    step_flops: int
    """Of all GPUs, what is computed twice included."""
    step_s: float | None
    memory: Mapping[str, int]
    """Bytes on a GPU when most are in use, by item."""
    memory_otherwise: int
    """All of it, if ``parallel.activation_checkpointing`` were the other way round."""

    @property
    def memory_total(self) -> int:
        """Bytes on a GPU, without those of CUDA itself and of gaps between tensors."""
        return sum(self.memory.values())

    @property
    def hours(self) -> float | None:
        """Of training alone, without start, validation and checkpoints."""
        return None if self.step_s is None else self.steps * self.step_s / 3600


@dataclass(frozen=True)
class TrainPlan:
    """The stages of a run, and what they are planned for."""

    config: TrainConfig
    machines: Machines
    stages: tuple[StagePlan, ...]

    @property
    def days(self) -> float | None:
        """Of all stages."""
        hours = [stage.hours for stage in self.stages]
        return None if None in hours else sum(hour for hour in hours if hour is not None) / 24


def plan(config: TrainConfig, gpus: int = 1, kind: str = "A800", utilisation: float = 0.4) -> TrainPlan:
    """What ``config`` takes on ``gpus`` GPUs of a ``kind``, from the model on torch's meta device.

    Reads configuration files at most; CogVideoX-5B's are known without them. Raises :class:`UserError` if the global batch
    cannot be divided into micro-batches of all GPUs, or the GPUs into replicas, and what :func:`training.model.build_model`
    raises.
    """
    if config.batch.size % (config.batch.micro * gpus):
        raise UserError(
            f"batch.size {config.batch.size} is no multiple of batch.micro {config.batch.micro} × {gpus} GPUs; change one"
        )
    machines = Machines(gpus, kind, utilisation, peak_flops(kind, config.dtype))
    before: set[str] = set()
    guided = False
    stages = []
    for stage in config.stages:
        guided |= stage.landmarks == "rendered"
        made, trained = _plan_stage(config, stage, machines, before, guided=guided)
        before |= trained
        stages.append(made)
    return TrainPlan(config, machines, tuple(stages))


def _plan_stage(
    config: TrainConfig, stage: StageConfig, machines: Machines, before: set[str], *, guided: bool
) -> tuple[StagePlan, set[str]]:
    """The plan of a stage after those that trained ``before``, and the names of what it trains.

    ``guided``: this stage or an earlier one has a landmark guider, so that the model has it.
    """
    grid = (LATENT_HEIGHT // config.data.shrink, LATENT_WIDTH // config.data.shrink)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[config.dtype]
    model = build_model(config.model, config.codec, grid, guider=guided, device="meta").to(dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.trains(name))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    guider = 0
    if model.guider is not None and stage.landmarks == "rendered":
        guider = forward_flops(model.guider, _drawings(1, FRAMES, dtype))
    layers, tokens = len(model.transformer.transformer_blocks), model.transformer.config.max_text_seq_length
    flops = count_flops(shapes, layers, grid, model.latent_shape[0], guider, tokens)
    checkpointing = config.parallel.activation_checkpointing
    recomputed = flops.recomputed(trained.__contains__, blocks=checkpointing)
    step_flops = config.batch.size * (flops.training(trained.__contains__) + recomputed)
    rate = machines.peak and machines.gpus * machines.peak * machines.utilisation

    memory = _state_bytes(config, stage, machines, model, trained, before)
    guiders = _guider_activations(model, config.batch.micro, trained)
    activations = _activations(model, config.batch.micro, dtype)
    chosen, other = activations.checkpointed, activations.kept
    if not checkpointing:
        chosen, other = other, chosen
    # The backward pass comes to the guider when it has done with the blocks.
    peak = {"activations": chosen} if chosen > guiders else {"activations of the guider": guiders}
    made = StagePlan(
        name=stage.name,
        steps=stage.steps,
        strategy=stage.strategy,
        parameters=sum(sizes.values()),
        trained=sum(sizes[name] for name in trained),
        tokens=flops.tokens,
        sample_flops=flops.training(trained.__contains__),
        recomputed_flops=recomputed,
        step_flops=step_flops,
        step_s=step_flops / rate if rate else None,
        memory=memory | peak,
        memory_otherwise=sum(memory.values()) + max(other, guiders),
    )
    return made, trained


def _state_bytes(
    config: TrainConfig,
    stage: StageConfig,
    machines: Machines,
    model: PortraitModel,
    trained: set[str],
    before: set[str],
) -> dict[str, int]:
    """Everything on a GPU but activations, by item."""
    if machines.gpus % config.parallel.replicas:
        raise UserError(
            f"parallel.replicas {config.parallel.replicas} does not divide {machines.gpus} GPUs; change one"
        )
    shards = machines.gpus // config.parallel.replicas if stage.strategy == "fsdp" else None
    dtype = next(model.parameters()).dtype
    blocks = model.transformer.transformer_blocks
    memory = states(model, blocks, trained, before, dtype, shards, ema=config.ema.decay > 0)
    if config.codec.codec == "vae" and (config.reference.noise or config.reference.frame != "stored"):
        guided = build_model(config.model, config.codec, model.latent_shape[2:], guider=True, device="meta").guider
        assert guided is not None
        itemsize = {"fp32": 4, "bf16": 2}[config.codec.dtype]
        memory["reference encoder"] = itemsize * sum(parameter.numel() for parameter in guided.parameters())
    return memory


def _activations(model: PortraitModel, batch: int, dtype: torch.dtype) -> Activations:
    latents = torch.empty(batch, *model.latent_shape, dtype=dtype, device="meta")
    timestep = torch.empty(batch, dtype=torch.int64, device="meta")
    tokens = torch.empty(batch, FACE_TOKENS, FACE_DIM, dtype=dtype, device="meta")
    return transformer_activations(
        model,
        model.transformer.transformer_blocks,
        lambda: model(latents, timestep, latents, tokens, landmarks=latents),
    )


def _guider_activations(model: PortraitModel, batch: int, trained: set[str]) -> int:
    """Those of the frames that it takes at a time; it keeps no others."""
    if not isinstance(model.guider, LandmarkGuider) or not any(name.startswith("guider.") for name in trained):
        return 0
    return encoder_activations(model.guider.encoder, _drawings(batch, _GUIDER_FRAMES, model.transformer.dtype))


def _drawings(batch: int, frames: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(batch, 3, frames, HEIGHT, WIDTH, dtype=dtype, device="meta")
