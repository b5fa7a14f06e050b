"""One stage of training: its model, its optimizer, and what a step is."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faceloom.errors import CheckFailed, UserError
from training.checkpoint import Checkpoint, Checkpoints
from training.conditioning import model_inputs
from training.ema import Ema
from training.guider import PictureEncoder
from training.model import PortraitModel
from training.objective import velocity_loss
from training.optimizer import adamw, learning_rate, set_learning_rate
from training.parallel import World, accumulation, clip_grad_norm, parallelize
from training.prepared import Prepared
from training.schedule import NoiseSchedule
from training.state import optimizer_state, trainable_state
from training.train_config import StageConfig, TrainConfig

logger = logging.getLogger(__name__)

_MOST_SKIPPED = 10
"""Steps in a row whose gradient is not finite before the run is given up."""


@dataclass(frozen=True)
class StepResult:
    """What a step was like: on this rank, but for the gradient."""

    losses: list[float]
    """Of each sample."""
    mean_weight: float
    """Of the loss, over samples and cells."""
    above_1: float
    """Share of the cells whose weight is more than 1."""
    grad_norm: float
    """Of the whole gradient, over all ranks, before clipping."""
    lr: float


class Stage:
    """The model of a stage on all ranks, and the optimizer of what the stage trains.

    ``model`` comes with its initial weights, the same on all ranks; ``number`` is the stage's in ``settings``. ``encoder`` is
    needed where references come as pixels. Constructing it is a collective call.
    """

    def __init__(
        self,
        settings: TrainConfig,
        number: int,
        model: PortraitModel,
        schedule: NoiseSchedule,
        encoder: PictureEncoder | None,
        world: World,
    ) -> None:
        self.config = settings.stages[number]
        self.number = number
        self._settings = settings
        self._schedule = schedule
        self._encoder = encoder
        self._world = world
        self._skipped = 0
        self._share = settings.batch.size // world.world
        names = [name for name, _ in model.named_parameters()]
        self.trained = frozenset(
            name for name in names if any(stage.trains(name) for stage in settings.stages[: number + 1])
        )
        """Names of the parameters that this stage or an earlier one trains: what a checkpoint holds."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.config.trains(name))
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.dtype]
        self.model = parallelize(model, settings.parallel, self.config.strategy, world, self.dtype, self.trained)
        self.model.train()
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimizer = adamw(self._parameters, settings.optimizer)
        self.ema = self._new_ema()

    def load(self, checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint``, which is of this stage or of an earlier one's end.

        Where averages are kept, a stage begins with those of the one before, as they were validated, and keeps its own anew.
        """
        if checkpoint.facts["stage"] == self.number:
            checkpoints.load(checkpoint, self.state())
            if self.ema is not None:
                self.ema.resume(checkpoint.facts["ema_updates"])
            return
        part = "model" if self.ema is None else "ema"
        checkpoints.load(checkpoint, {part: trainable_state(self.model, checkpoint.names(part) & self.trained)})
        self.ema = self._new_ema()

    @property
    def ema_updates(self) -> int:
        """How often the average was updated; belongs into the facts of a checkpoint."""
        return 0 if self.ema is None else self.ema.updates

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of it (:meth:`training.checkpoint.Checkpoints.save`), and :meth:`load` overwrites."""
        state: dict[str, object] = {
            "model": trainable_state(self.model, self.trained),
            "optimizer": optimizer_state(self.model, self._optimizer),
        }
        if self.ema is not None:
            state["ema"] = dict(self.ema.average)
        return state

    def step(self, batches: Iterator[Prepared], number: int) -> StepResult:
        """Take the stage's step ``number`` (from 0), on as many batches as make this rank's share of a global batch.

        The gradient is that of the mean over the global batch, however it is divided among ranks and micro-batches. A step
        whose gradient is not finite changes nothing; too many in a row are a :class:`CheckFailed`.
        """
        micro_batches = self._share // self._settings.batch.micro
        losses: list[Tensor] = []
        weights: list[tuple[float, float]] = []
        suspects: list[tuple[str, ...]] = []
        for micro in range(micro_batches):
            prepared = next(batches).to(self._world.device)
            inputs, target, weight = model_inputs(prepared, self._schedule, self._encoder, self.dtype)
            with accumulation(self.model, last=micro == micro_batches - 1):
                of_samples = velocity_loss(self.model(**inputs), target, weight)
                # DDP and FSDP take the mean over the ranks.
                torch.autograd.backward(of_samples.sum() / self._share)
            losses.append(of_samples.detach())
            weights.append((prepared.mean_weight, prepared.above_1))
            suspects.append(prepared.clip_ids)
        norm = clip_grad_norm(self._parameters, self._settings.optimizer.clip_grad_norm)
        rate = learning_rate(self.config, number)
        found = torch.cat(losses).tolist()
        grad_norm = float(norm)
        if math.isfinite(grad_norm):
            set_learning_rate(self._optimizer, rate)
            self._optimizer.step()
            self._skipped = 0
            if self.ema is not None:
                self.ema.update()
        else:
            self._skip(number, found, [clip for clips in suspects for clip in clips])
        self._optimizer.zero_grad(set_to_none=True)
        mean_weight, above_1 = (sum(values) / micro_batches for values in zip(*weights, strict=True))
        return StepResult(found, mean_weight, above_1, grad_norm, rate)

    def _skip(self, number: int, losses: list[float], clips: list[str]) -> None:
        self._skipped += 1
        bad = [clip for clip, loss in zip(clips, losses, strict=True) if not math.isfinite(loss)]
        of = f"the loss of {', '.join(bad)}" if bad else "the gradient, but no loss of this rank's samples,"
        logger.warning("step %d of stage %s is skipped: %s is not finite", number, self.config.name, of)
        if self._skipped == _MOST_SKIPPED:
            raise CheckFailed(
                f"the gradient was not finite in {_MOST_SKIPPED} steps in a row (stage {self.config.name}, step {number}); "
                "lower the stage's lr, or look at the clips that the warnings name"
            )

    def _new_ema(self) -> Ema | None:
        if not self._settings.ema.decay:
            return None
        return Ema(trainable_state(self.model, self.trained), self._settings.ema.decay)


def check_patterns(stage: StageConfig, names: Sequence[str]) -> None:
    """Raise :class:`UserError` if a pattern of ``stage.trainable`` fits none of the parameters called ``names``."""
    for pattern in stage.trainable:
        if not any(re.match(pattern, name) for name in names):
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            raise UserError(
                f"stage {stage.name}: trainable {pattern!r} fits no parameter; their names begin with: {', '.join(known)}"
            )
