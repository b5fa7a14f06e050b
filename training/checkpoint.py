"""Checkpoints of a run: each is whole or absent, and any number of ranks can go on from it.

``step-00000200/`` holds what torch's distributed checkpoint writes (``.metadata`` and one ``.distcp`` file a rank) and
``checkpoint.json``: the step, the facts of the run, and size and crc32c of every file. The folder is written under a
temporary name and renamed when all ranks have flushed their files: one of that name was complete once.

There is no state of random number generators in it: all randomness is keyed by seed and position.
"""

import json
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import google_crc32c
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from faceloom.errors import UserError
from shards.storage import make_folder, move_folder, write_atomic
from training.checkpoint_config import CheckpointConfig

logger = logging.getLogger(__name__)

RECORD = "checkpoint.json"
_FORMAT = 1
_READ_BYTES = 1 << 24
# The slowest disk that is worth waiting for; heartbeats end a run whose rank hangs.
_WRITE_TIMEOUT = timedelta(hours=2)

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose files are there and have their sizes."""

    path: Path
    step: int
    facts: dict[str, Any]
    """What the run said of itself when it saved: JSON."""
    files: dict[str, dict[str, int]]
    """By name: ``bytes`` and ``crc32c``."""

    def names(self, part: str) -> frozenset[str]:
        """The names in one part of it: of ``model``, those of the parameters it holds."""
        prefix = f"{part}."
        return frozenset(name.removeprefix(prefix) for name in self._stored() if name.startswith(prefix))

    def _stored(self) -> Mapping[str, Any]:
        return FileSystemReader(self.path).read_metadata().state_dict_metadata


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in ``path``. Raises :class:`UserError` if its record or a file is missing or cut short."""
    try:
        record = json.loads((path / RECORD).read_bytes())
        checkpoint = Checkpoint(path, record["step"], record["facts"], record["files"])
        for name, file in checkpoint.files.items():
            if (path / name).stat().st_size != file["bytes"]:
                raise UserError(f"{path / name} is cut short: {path} is no whole checkpoint")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: {path} is no whole checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / RECORD} cannot be read ({error}): {path} is no whole checkpoint") from None
    return checkpoint


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in ``folder`` that is whole; newer ones that are not are named in a warning."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return read_checkpoint(path)
        except UserError as error:
            logger.warning("passing over a damaged checkpoint: %s", error)
    return None


class Checkpoints:
    """The checkpoints of a run in ``folder``, written and read by all ranks together.

    Constructing it, and every method but :meth:`due` and :meth:`poll`, is a collective call. Nothing else may write to
    ``folder``, which all ranks see; what earlier runs left half-written is removed. After its ``with`` block no save is on
    its way, so that the process group can be destroyed.
    """

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self._folder = folder
        self._config = config
        self._rank = dist.get_rank()
        # A group of its own: a save in the background must not take part in the collectives of training.
        self._group: Any = dist.new_group(backend="gloo", timeout=_WRITE_TIMEOUT)
        self._pending: _Save | None = None
        self._failed: str | None = None
        self._loaded: Path | None = None
        self._agree(self._clean)

    def due(self, step: int) -> bool:
        """Whether to save after ``step`` steps."""
        return step % self._config.every == 0

    def save(self, step: int, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Save ``tensors``, a tree of dictionaries whose leaves are tensors, after ``step`` steps.

        DTensors are written in their shards; other tensors must be equal on all ranks, and one of them writes it. ``facts``
        are JSON, the same on all ranks. If ``asynchronous``, it returns when ``tensors`` are copied to host memory; a save
        still on its way is waited for first. One that fails is logged and is no error: training can go on, and the next
        may do better.
        """
        self.wait()
        flat = dict(_flatten(tensors))
        said = json.loads(json.dumps(facts, allow_nan=False))
        if self._config.asynchronous:
            stager = DefaultStager(StagingOptions(False, False, False, False))
            staged = stager.stage(flat)
            assert isinstance(staged, dict)
            stager.close()
            flat = staged
        self._pending = _Save(step, lambda: self._write(step, flat, said))
        self._pending.start()
        if not self._config.asynchronous:
            self.wait()

    def poll(self) -> bool:
        """Whether a save is still on its way; logs one that failed. Cheap: for every step."""
        if self._pending is not None and not self._pending.is_alive():
            self._harvest(self._pending)
        return self._pending is not None

    def wait(self) -> None:
        """Return when no save is on its way."""
        if self._pending is not None:
            self._pending.join()
            self._harvest(self._pending)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint: the same on all ranks. Damaged newer ones are named in a warning."""
        self.wait()
        return self._agree(lambda: latest_checkpoint(self._folder) if self._rank == 0 else None)[0]

    def load(self, checkpoint: Checkpoint, tensors: Mapping[str, Any]) -> None:
        """Overwrite ``tensors``, a tree as :meth:`save` takes it, with what ``checkpoint`` holds under the same names.

        It may hold more, and may be of another number of ranks and another strategy. Raises :class:`UserError` that names
        what it lacks, a tensor of another shape, or a file whose bytes are not those that were written. A checkpoint that
        was loaded stays on disk as long as this object lives: a run that goes wrong after it can go back. ``.metadata`` is a
        pickle, which can run code: load what you trust.
        """
        self.wait()
        flat = dict(_flatten(tensors))
        share = sorted(checkpoint.files)[self._rank :: dist.get_world_size()]
        try:
            self._agree(lambda: _verify(checkpoint, share))
            _check_fit(checkpoint, flat)
            dcp_load(flat, storage_reader=FileSystemReader(checkpoint.path), process_group=self._group)
        except (_RanksFailedError, CheckpointException) as error:
            raise UserError(
                f"{_why(error)}; delete {checkpoint.path} and run the same command again: it will take the checkpoint before"
            ) from None
        self._loaded = checkpoint.path

    def close(self) -> None:
        """Wait for the last save. Raises :class:`UserError` if it failed: the run's result is not on disk."""
        self.wait()
        if self._failed is not None:
            raise UserError(f"{self._failed}. Run the same command again with --resume")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.wait()

    def _harvest(self, save: "_Save") -> None:
        self._pending = None
        self._failed = None
        if save.failure is not None:
            free_gib = shutil.disk_usage(self._folder).free / 2**30
            self._failed = (
                f"the checkpoint of step {save.step} could not be written: {save.failure}; {self._folder} has "
                f"{free_gib:.1f} GiB free, and the checkpoints before it are whole"
            )
            if self._rank == 0:
                logger.error("%s; training goes on, and the next one is tried when it is due", self._failed)

    def _write(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str | None:
        """Write and commit; what went wrong, if anything did. Only ranks together can, and all learn of it."""
        target = self._folder / f"step-{step:08d}"
        temporary = _temporary(target)
        try:
            if self._agree(lambda: self._begin(target, facts))[0]:
                return None
            dcp_save(tensors, storage_writer=_Writer(temporary), process_group=self._group)
            files: dict[str, dict[str, int]] = {}
            for share in self._agree(lambda: _describe(temporary, self._rank)):
                files.update(share)
            self._agree(lambda: self._commit(target, step, facts, files))
        except (Exception, CheckpointException) as error:  # which is no Exception
            # Whatever it was, the model in memory is worth more than this copy of it.
            if self._rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            return _why(error)
        return None

    def _begin(self, target: Path, facts: dict[str, Any]) -> bool:
        """Make room for ``target``; true if it is already there, as when a run is stopped right after it was resumed."""
        if self._rank != 0:
            return False
        shutil.rmtree(_temporary(target), ignore_errors=True)
        try:
            return read_checkpoint(target).facts == facts
        except UserError:
            return False

    def _commit(self, target: Path, step: int, facts: dict[str, Any], files: dict[str, dict[str, int]]) -> None:
        if self._rank != 0:
            return
        record = {"format": _FORMAT, "torch": torch.__version__, "step": step, "facts": facts, "files": files}
        write_atomic(_temporary(target) / RECORD, json.dumps(record, indent=1).encode())
        if target.exists():
            _discard(target, self._folder / f".{target.name}.replaced.tmp")
        move_folder(_temporary(target), target)
        try:
            self._purge()
        except OSError as error:
            logger.warning("an old checkpoint could not be deleted: %s", error)

    def _purge(self) -> None:
        whole: list[Path] = []
        for path in sorted(self._folder.glob("step-*"), reverse=True):
            if len(whole) == self._config.keep:
                if path != self._loaded:
                    _discard(path, _temporary(path))
            elif _is_whole(path):
                whole.append(path)

    def _clean(self) -> None:
        if self._rank == 0:
            make_folder(self._folder)
            for path in self._folder.glob(".step-*.tmp"):
                shutil.rmtree(path)

    def _agree(self, action: Callable[[], T]) -> list[T]:
        """Results of ``action`` by rank; raises on every rank what it raised on any."""
        mine: tuple[T | None, str | None]
        try:
            mine = (action(), None)
        except Exception as error:
            mine = (None, f"{socket.gethostname()}: {_why(error)}")
        results: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(results, mine, group=self._group)
        failures = [f"rank {rank} on {why}" for rank, (_, why) in enumerate(results) if why is not None]
        if failures:
            raise _RanksFailedError("; ".join(failures))
        return [value for value, _ in results]


class _Save(threading.Thread):
    """A save on its way. A daemon: a rank that has lost its peers must not wait for them when it exits."""

    def __init__(self, step: int, write: Callable[[], str | None]) -> None:
        super().__init__(name=f"checkpoint-{step}", daemon=True)
        self.step = step
        self.failure: str | None = "its thread died"
        self._write = write

    def run(self) -> None:
        self.failure = self._write()


class _Writer(FileSystemWriter):
    """Torch's writer, which in place of the disk's own words (no space, quota) has ``unexpected pos 704 vs 598``."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


class _RanksFailedError(UserError):
    """What went wrong, on which ranks."""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            raise TypeError(f"{prefix}{key} is a {type(value).__name__}, which is no tensor; put it into the facts")


def _describe(folder: Path, rank: int) -> dict[str, dict[str, int]]:
    """Size and checksum of what this rank wrote."""
    paths = [*folder.glob(f"__{rank}_*.distcp"), *([folder / ".metadata"] if rank == 0 else [])]
    return {path.name: {"bytes": path.stat().st_size, "crc32c": _crc32c(path)} for path in paths}


def _verify(checkpoint: Checkpoint, names: list[str]) -> None:
    for name in names:
        if _crc32c(checkpoint.path / name) != checkpoint.files[name]["crc32c"]:
            raise OSError(f"{checkpoint.path / name} is damaged: its bytes are not those that were written")


def _crc32c(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as stream:
        while data := stream.read(_READ_BYTES):
            checksum = google_crc32c.extend(checksum, data)
    return checksum


def _check_fit(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    stored = checkpoint._stored()
    for name, tensor in tensors.items():
        found = stored.get(name)
        if not isinstance(found, TensorStorageMetadata):
            missing = [other for other in tensors if other not in stored]
            raise UserError(
                f"{checkpoint.path} lacks {name} and {len(missing) - 1} more: it is of a run that trained something else; "
                "resume with the configuration of that run"
            )
        if found.size != tensor.shape:
            raise UserError(
                f"{checkpoint.path}: {name} is {list(found.size)}, and {list(tensor.shape)} in this model; resume with the "
                "configuration of that run"
            )


def _is_whole(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except UserError:
        return False
    return True


def _discard(path: Path, temporary: Path) -> None:
    # Renamed first: nobody shall find a checkpoint half deleted.
    shutil.rmtree(temporary, ignore_errors=True)
    path.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def _why(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(f"rank {rank}: {_why(failure)}" for rank, (failure, _) in error.failures.items())
    if isinstance(error, _RanksFailedError):
        return str(error)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
