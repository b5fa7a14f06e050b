"""The numbers of a training run: computed once, sent to a file, TensorBoard, the terminal and, if asked, W&B."""

import importlib.util
import json
import math
import resource
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch
from rich.console import Console

from faceloom.errors import UserError
from shards.storage import write_atomic
from training.metrics_config import MetricsConfig
from training.metrics_display import Display

_GIB = 2**30


@dataclass(frozen=True)
class Interval:
    """What a run did since its last report, over all ranks: the caller has reduced every number."""

    steps: int
    loss: float
    """Mean over samples, ranks and steps."""
    loss_max: float
    """The highest of any rank's mean over its samples of a step."""
    grad_norm: float
    """Before clipping; of the last step."""
    lr: float
    samples: int
    seconds: float
    """From the last report to this one, less the time of validation and of checkpoints that held the run up."""
    data_wait_s: float
    """Of them, waited for batches: that of the rank that waited longest."""
    memory_gib: float
    """Highest of any rank; see :func:`peak_memory_gib`."""
    memory_reserved_gib: float
    damaged: int = 0
    """Samples since the run began whose place another one took, because they could not be read."""


def peak_memory_gib(device: torch.device) -> tuple[float, float]:
    """Most memory in use, and most taken from the device, since the last call; of this rank, in GiB.

    On CUDA: active and reserved bytes of torch's allocator. On the CPU: twice the process's most resident memory since it
    began.
    """
    if device.type != "cuda":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
        return peak, peak
    stats = torch.cuda.memory_stats(device)
    torch.cuda.reset_peak_memory_stats(device)
    return stats["active_bytes.all.peak"] / _GIB, stats["reserved_bytes.all.peak"] / _GIB


class Metrics:
    """Where the run's numbers go. Rank 0 alone reports: on other ranks every call returns at once.

    ``out`` is the run's folder. It gets ``metrics.jsonl``, a line a report with ``step``, ``stage`` and the numbers under
    the names they have in TensorBoard; what is not finite is ``null`` there. A run that goes on from the checkpoint of step
    ``resumed_at`` first drops the lines of later steps, and a last line that a crash cut short; TensorBoard hides its events
    of later steps; W&B keeps its own and ignores the new ones until they pass them.

    A full disk ends no run. It is said once; the lines of ``metrics.jsonl`` follow when there is room, TensorBoard's end.

    MFU is the share of ``peak`` operations a second that each of ``world`` ranks could do; where that is unknown, None, no
    MFU is shown. ``run_config`` is what W&B shows as the run's configuration. Raises :class:`UserError`, on every rank, if
    W&B is asked for and not installed.
    """

    def __init__(
        self,
        config: MetricsConfig,
        out: Path,
        *,
        rank: int,
        world: int,
        peak: float | None,
        resumed_at: int = 0,
        run_config: Mapping[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        if config.wandb and importlib.util.find_spec("wandb") is None:
            raise UserError(
                f"metrics.wandb is {config.wandb!r}, but the package wandb is not installed; "
                "pip install wandb, or leave metrics.wandb out"
            )
        self._world, self._peak = world, peak
        self._stage, self._before, self._steps = "", 0, 0
        self._flops = self._tokens = 0
        self._file: TextIO | None = None
        self._unwritten = False
        self._tensorboard: Any = None
        self._wandb: Any = None
        if rank:
            return
        self._display = Display(console or Console(highlight=False, markup=False, emoji=False))
        path = out / "metrics.jsonl"
        dropped = _drop_later_lines(path, resumed_at)
        if dropped:
            self._display.line(f"{path}: {dropped} lines after step {resumed_at} dropped; their steps are taken again")
        self._file = path.open("a", encoding="utf-8")
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            purge = resumed_at + 1 if resumed_at else None
            self._tensorboard = SummaryWriter(str(out / "tensorboard"), purge_step=purge)
        if config.wandb:
            import wandb

            self._wandb = wandb.init(
                project=config.wandb,
                name=out.resolve().name,
                id=_wandb_id(out / "wandb-id"),
                resume="allow",
                dir=str(out),
                config=dict(run_config or {}),
            )

    def begin_stage(self, name: str, before: int, steps: int, flops: int, tokens: int) -> None:
        """Reports from here on are of stage ``name``: ``steps`` steps after the run's first ``before``.

        ``flops`` are the operations of training on one sample (:meth:`training.flops.Flops.training`), of ``tokens`` tokens.
        """
        self._stage, self._before, self._steps = name, before, steps
        self._flops, self._tokens = flops, tokens
        if self._file:
            self._display.begin(name, steps)

    def log(self, step: int, interval: Interval, extra: Mapping[str, float] | None = None) -> None:
        """Report the steps up to ``step``, counted over all stages; ``extra`` are more numbers by name."""
        if not self._file:
            return
        samples_per_s = interval.samples / interval.seconds
        flops_per_s = samples_per_s * self._flops / self._world
        values = {
            "loss": interval.loss,
            "loss_max": interval.loss_max,
            "grad_norm": interval.grad_norm,
            "lr": interval.lr,
            "speed/seconds_per_step": interval.seconds / interval.steps,
            "speed/samples_per_s": samples_per_s,
            "speed/tokens_per_s": samples_per_s * self._tokens,
            "speed/tflops_per_s_per_rank": flops_per_s / 1e12,
            "speed/data_wait": interval.data_wait_s / interval.seconds,
            "memory/peak_gib": interval.memory_gib,
            "memory/reserved_gib": interval.memory_reserved_gib,
            "data/damaged": interval.damaged,
        }
        if self._peak is not None:
            values["speed/mfu"] = flops_per_s / self._peak
        self._write(step, values | dict(extra or {}))
        self._display.progress(step - self._before, _summary(values))

    def log_validation(self, step: int, values: Mapping[str, float]) -> None:
        """Report what validation measured after ``step``, e.g. ``held_out`` and ``held_out/t0100``."""
        if self._file:
            self._write(step, values)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if "/" not in name)
            self._display.line(f"step {step}: {shown}")

    def say(self, line: str) -> None:
        """Show a line on the terminal."""
        if self._file:
            self._display.line(line)

    def close(self) -> None:
        """Write what is left; the terminal is free again."""
        if not self._file:
            return
        self._display.close()
        with self._without_disk():
            self._file.close()
        self._file = None
        if self._tensorboard:
            with self._without_disk():
                self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        assert self._file is not None
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, "stage": self._stage, **finite}, allow_nan=False)
        with self._without_disk():
            self._file.write(line + "\n")
            self._file.flush()  # what a full disk does not take stays in its buffer
        if self._tensorboard:
            with self._without_disk():
                for name, value in values.items():
                    self._tensorboard.add_scalar(name, value, step)
                self._tensorboard.flush()
        if self._wandb:
            self._wandb.log(dict(values), step=step)

    @contextmanager
    def _without_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._unwritten:
                self._unwritten = True
                self._display.line(f"the run's numbers cannot be written: {error}; training goes on")


def _summary(values: Mapping[str, float]) -> str:
    parts = [
        f"loss {values['loss']:.4f} (max {values['loss_max']:.4f})",
        f"grad norm {values['grad_norm']:.3g}",
        f"{values['speed/samples_per_s']:.3g} samples/s",
    ]
    if "speed/mfu" in values:
        parts.append(f"MFU {values['speed/mfu']:.1%}")
    parts += [f"data wait {values['speed/data_wait']:.1%}", f"{values['memory/peak_gib']:.1f} GiB"]
    if values["data/damaged"]:
        parts.append(f"{values['data/damaged']:g} damaged samples replaced")
    return ", ".join(parts)


def _drop_later_lines(path: Path, step: int) -> int:
    """Leave only whole lines of steps up to ``step``; how many were taken out."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if _is_up_to(line, step)]
    if len(kept) < len(lines):
        write_atomic(path, "".join(kept).encode())
    return len(lines) - len(kept)


def _is_up_to(line: str, step: int) -> bool:
    try:
        return bool(line.endswith("\n") and json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False


def _wandb_id(path: Path) -> str:
    """The id of the run's page, which a resumed run goes on with."""
    if not path.exists():
        write_atomic(path, secrets.token_hex(8).encode())
    return path.read_text()
