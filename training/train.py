"""A training run, from its configuration to its last checkpoint: what every rank does.

A stage begins where the checkpoint of the one before ends, so that a run that goes through and one that is resumed take the
same way.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist

from faceloom.errors import UserError
from shards.loader import resume
from shards.schema import FRAMES, HEIGHT, WIDTH
from training.checkpoint import Checkpoint, Checkpoints
from training.data import Batches, HeldOut, TrainingData
from training.flops import Flops, count_flops, forward_flops, peak_flops
from training.guider import PictureEncoder
from training.heartbeat import Heartbeat
from training.job import Job
from training.metrics import Metrics
from training.model import PortraitModel, build_model, load_schedule_config
from training.parallel import World, finish, start
from training.place import Place
from training.prepared import Prepared, Recipe
from training.report import Reporter
from training.run_folder import CHECKPOINTS, HEARTBEATS, claim
from training.schedule import NoiseSchedule
from training.stage import Stage, check_patterns
from training.stop import Stop
from training.train_config import TrainConfig
from training.validation import Validation

_SAVING_S = 7200.0
_VALIDATING_S = 7200.0
"""How long a rank may be silent in these phases before the run is given up, in seconds."""


def train(job: Job) -> bool:
    """Train, together with all other ranks; returns whether the run is complete, and not stopped by a signal.

    Raises :class:`UserError` for bad input and for a last checkpoint that could not be written, and :class:`CheckFailed` for
    gradients that stay infinite.
    """
    world = start(job.config.parallel)
    try:
        return _Run(job, world).go()
    finally:
        finish()


class _Run:
    """One rank's part in a run."""

    def __init__(self, job: Job, world: World) -> None:
        self._job = job
        self._config = job.config
        self._world = world
        _check_batch(job.config, world.world)
        self._digest, self._drawings = self._check_stages()
        _on_first_rank(world, lambda: claim(job.out, self._record(), job.resume))
        self._checkpoints = Checkpoints(job.out / CHECKPOINTS, job.config.checkpoint)

    def go(self) -> bool:
        """Take what is left of the stages; whether that was all of it."""
        config, world, out = self._config, self._world, self._job.out
        steps = sum(stage.steps for stage in config.stages)
        checkpoint = self._checkpoints.latest()
        place = Place() if checkpoint is None else Place.of(checkpoint.facts)
        metrics = Metrics(
            config.metrics,
            out,
            rank=world.rank,
            world=world.world,
            peak=peak_flops(_device_name(world), config.dtype),
            resumed_at=place.step,
            run_config=config.model_dump(mode="json"),
        )
        with (
            metrics,
            Heartbeat(out / HEARTBEATS, world.rank, config.parallel.step_timeout_s) as heartbeat,
            Stop() as stop,
        ):
            if place.step == steps:
                metrics.say(f"nothing to do: all {steps} steps of {out} are done")
            while place.step < steps:
                if place.stage_step == config.stages[place.stage].steps:
                    place = place.next_stage()
                place, stopped = self._take_stage(place, checkpoint, metrics, heartbeat, stop)
                if stopped and place.step < steps:
                    metrics.say(f"stopped by a signal after step {place.step}; go on with --resume")
                    return False
                checkpoint = self._checkpoints.latest()
        return True

    def _take_stage(
        self, place: Place, checkpoint: Checkpoint | None, metrics: Metrics, heartbeat: Heartbeat, stop: Stop
    ) -> tuple[Place, bool]:
        """Train on from ``place`` to the end of its stage, or until a signal; where that led to, and whether one came."""
        config, world = self._config, self._world
        at = config.stages[place.stage]
        heartbeat.begin(place.step, f"building stage {at.name}")
        data = self._stage_data(place.stage)
        if checkpoint is not None:
            resume(checkpoint.facts["data"], data.plan)
        schedule = load_schedule_config(config.model)
        stage = self._build_stage(place, data, schedule, metrics)
        if checkpoint is not None:
            stage.load(self._checkpoints, checkpoint)
        validator = self._validator(stage, data, schedule, metrics, heartbeat)
        reporter = Reporter(metrics, config.metrics.every, world)
        with data.batches(config.batch.micro, world.rank, world.world, place.consumed) as batches:
            with reporter.paused():
                if place.step == 0:
                    validator(place)
            stopping = False
            while place.stage_step < at.steps and not stopping:
                watched = _watched(batches, reporter, heartbeat, place.step)
                result = stage.step(watched, place.stage_step)
                place = place.after_step(config.batch.size)
                last = place.stage_step == at.steps
                stopping = reporter.step(place, result, batches.replaced, stop.requested, last)
                with reporter.paused():
                    if last or stopping or self._checkpoints.due(place.step):
                        heartbeat.beat(place.step, "saving", _SAVING_S)
                        facts = {**place.facts(), "data": _data_state(data, place), "ema_updates": stage.ema_updates}
                        self._checkpoints.save(place.step, stage.state(), facts)
                    self._checkpoints.poll()
                    if not stopping and (last or place.step % config.validation.every == 0):
                        validator(place)
        heartbeat.beat(place.step, "finishing the checkpoint", _SAVING_S)
        self._checkpoints.close()
        return place, stopping

    def _build_stage(self, place: Place, data: TrainingData, schedule: Mapping[str, Any], metrics: Metrics) -> Stage:
        config, world = self._config, self._world
        at = config.stages[place.stage]
        model = self._build_model(place.stage, data.sample_grid)
        flops = _flops(model, data.sample_grid, guided=at.landmarks == "rendered")
        metrics.begin_stage(at.name, place.step - place.stage_step, at.steps, flops.training(at.trains), flops.tokens)
        encoder = None
        if config.reference.noise or config.reference.frame != "stored":
            encoder = PictureEncoder(config.codec).to(world.device)
        return Stage(config, place.stage, model, NoiseSchedule(schedule, world.device), encoder, world)

    def _validator(
        self, stage: Stage, data: TrainingData, schedule: Mapping[str, Any], metrics: Metrics, heartbeat: Heartbeat
    ) -> Callable[[Place], None]:
        """Measures and shows what the model of ``stage`` does on the held-out clips, if there are any."""
        if self._job.held_out is None:
            return lambda _: None
        config = self._config.validation
        held_out = HeldOut(self._job.held_out, data.recipe)
        validation = Validation(config, held_out, schedule, self._world, stage.dtype, self._job.out)

        def validate(place: Place) -> None:
            heartbeat.beat(place.step, "validating", _VALIDATING_S)
            average = nullcontext() if stage.ema is None else stage.ema.swapped(stage.model)
            with average:
                metrics.log_validation(place.step, validation.losses(stage.model))
                if config.videos:
                    validation.videos(stage.model, place.step)

        return validate

    def _check_stages(self) -> tuple[str, dict[str, str]]:
        """Refuse what does not fit any stage before the folder is made, and not after days, when its turn comes.

        Returns the digest of the data's plan and how its landmarks were drawn, which are the same for all stages.
        """
        load_schedule_config(self._config.model)
        for number, stage in enumerate(self._config.stages):
            data = self._stage_data(number)
            if self._job.held_out is not None:
                HeldOut(self._job.held_out, data.recipe)
            model = self._build_model(number, data.sample_grid, "meta")
            check_patterns(stage, [name for name, _ in model.named_parameters()])
        return data.plan.digest, data.drawings

    def _build_model(self, stage: int, grid: tuple[int, int], device: Literal["cpu", "meta"] = "cpu") -> PortraitModel:
        """With the guider from the first stage on that goes through it."""
        config = self._config
        guider = any(each.landmarks == "rendered" for each in config.stages[: stage + 1])
        return build_model(config.model, config.codec, grid, guider=guider, device=device)

    def _stage_data(self, number: int) -> TrainingData:
        config, stage = self._config, self._config.stages[number]
        recipe = Recipe(
            data=config.data,
            codec=config.codec,
            reference=config.reference,
            weight=config.weight,
            landmarks=stage.landmarks,
            face_dropout=stage.face_dropout,
            landmark_dropout=stage.landmark_dropout,
            seed=config.seed,
        )
        return TrainingData(self._job.data, recipe)

    def _record(self) -> dict[str, Any]:
        """For :func:`training.run_folder.claim`."""
        job = self._job
        return {
            "config": job.config.model_dump(mode="json"),
            "deciding": {**job.config.deciding, "samples": self._digest},
            "drawings": self._drawings,
            "data": [str(root.absolute()) for root in job.data],
            "held_out": None if job.held_out is None else str(job.held_out.absolute()),
        }


def _watched(batches: Batches, reporter: Reporter, heartbeat: Heartbeat, step: int) -> Iterator[Prepared]:
    """``batches``, with the waiting for them measured, and each one a sign of life."""
    while True:
        heartbeat.beat(step, "waiting for data")
        with reporter.waiting():
            batch = next(batches)
        heartbeat.beat(step, "computing")
        yield batch


def _flops(model: PortraitModel, grid: tuple[int, int], guided: bool) -> Flops:
    """Operations of the model for a sample; of its guider too, if the stage goes through it."""
    guider = 0
    if guided and model.guider is not None:
        on_meta = copy.deepcopy(model.guider).to("meta")
        guider = forward_flops(on_meta, torch.empty(1, 3, FRAMES, HEIGHT, WIDTH, device="meta"))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    layers, tokens = len(model.transformer.transformer_blocks), model.transformer.config.max_text_seq_length
    return count_flops(shapes, layers, grid, model.latent_shape[0], guider, tokens)


def _data_state(data: TrainingData, place: Place) -> dict[str, Any]:
    """For :func:`shards.loader.resume`."""
    return {"digest": data.plan.digest, "seed": data.plan.seed, "consumed": place.consumed}


def _check_batch(config: TrainConfig, ranks: int) -> None:
    at_once = config.batch.micro * ranks
    if config.batch.size % at_once:
        sizes = [
            size
            for size in (config.batch.size // at_once * at_once, (config.batch.size // at_once + 1) * at_once)
            if size
        ]
        raise UserError(
            f"batch.size {config.batch.size} cannot be shared by {ranks} ranks that take {config.batch.micro} samples "
            f"(batch.micro) at a time; make it {' or '.join(map(str, sizes))}, or change batch.micro or the number of ranks"
        )


def _on_first_rank(world: World, action: Callable[[], None]) -> None:
    """Do ``action`` on rank 0; its :class:`UserError` is raised on every rank."""
    outcome: list[str | None] = [None]
    if world.first:
        try:
            action()
        except UserError as error:
            outcome = [str(error)]
    dist.broadcast_object_list(outcome, src=0, device=world.device)
    if outcome[0] is not None:
        raise UserError(outcome[0])


def _device_name(world: World) -> str:
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
