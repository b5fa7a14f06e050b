"""What steps were like over all ranks, put together for :mod:`training.metrics`; and whether a rank was asked to stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from training.metrics import Interval, Metrics, peak_memory_gib
from training.parallel import World
from training.place import Place
from training.stage import StepResult


class Reporter:
    """Reduces each step over the ranks; reports every ``every`` of them, and the last of a stage and before a stop."""

    def __init__(self, metrics: Metrics, every: int, world: World) -> None:
        self._metrics = metrics
        self._every = every
        self._world = world
        self._began = time.monotonic()
        self._waited_s = 0.0
        self._steps = 0
        self._sums = torch.zeros(4, dtype=torch.float64)
        self._loss_max = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what is waited for a batch."""
        began = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no part of training's speed: validation, checkpoints."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began

    def step(self, place: Place, result: StepResult, damaged: int, stop: bool, last: bool) -> bool:
        """Take in the step that led to ``place``, a collective call; whether a rank was asked to stop.

        ``damaged`` are the samples that this rank has had to replace so far, ``last`` whether the stage ends here.
        """
        count = len(result.losses)
        mine = [sum(result.losses), count, result.mean_weight * count, result.above_1 * count, damaged, float(stop)]
        sums = torch.tensor(mine, dtype=torch.float64, device=self._world.device)
        dist.all_reduce(sums)
        self._sums += sums[:4].cpu()
        self._steps += 1
        self._loss_max = max(self._loss_max, sum(result.losses) / count)
        stopping = bool(sums[5])
        if last or stopping or place.stage_step % self._every == 0:
            self._report(place, result, int(sums[4]))
        return stopping

    def _report(self, place: Place, result: StepResult, damaged: int) -> None:
        seconds = time.monotonic() - self._began
        most = torch.tensor(
            [self._loss_max, self._waited_s, seconds, *peak_memory_gib(self._world.device)],
            dtype=torch.float64,
            device=self._world.device,
        )
        dist.all_reduce(most, dist.ReduceOp.MAX)
        loss_max, waited_s, longest_s, memory, reserved = most.tolist()
        loss, samples, weight, above_1 = self._sums.tolist()
        interval = Interval(
            steps=self._steps,
            loss=loss / samples,
            loss_max=loss_max,
            grad_norm=result.grad_norm,
            lr=result.lr,
            samples=int(samples),
            seconds=longest_s,
            data_wait_s=waited_s,
            memory_gib=memory,
            memory_reserved_gib=reserved,
            damaged=damaged,
        )
        self._metrics.log(place.step, interval, {"weight/mean": weight / samples, "weight/above_1": above_1 / samples})
        self._began, self._waited_s, self._steps, self._loss_max = time.monotonic(), 0.0, 0, 0.0
        self._sums.zero_()
