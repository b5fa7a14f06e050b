"""Batches for training, in the order of a plan: read by threads, ahead of their use, into memory that is used again.

Every rank of a run makes a loader of the same plan. Its state is where the whole run stands, the same on all ranks, and a run
may go on from it with another number of ranks::

    plan = Plan([DatasetShape(dataset.digest, dataset.shard_sizes)], seed=0)
    consumed = resume(checkpoint["loader"], plan) if checkpoint else 0
    with Loader([dataset], plan, global_batch=512, rank=rank, world=world, consumed=consumed) as loader:
        for batch in loader:
            ...
            checkpoint["loader"] = loader.state()
"""

import json
import math
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed

from faceloom.errors import UserError
from shards.faults import DamageLimit
from shards.index import DamageError
from shards.plan import Draw, Plan, rank_positions
from shards.reader import ShardedDataset

_MOST_AHEAD = 32
_MOST_REPLACEMENTS = 100


def resume(state: Mapping[str, Any], plan: Plan) -> int:
    """The positions consumed by the run that ``state`` (:meth:`Loader.state`) was saved of, if ``plan`` continues it.

    Raises :class:`UserError` if it does not: other datasets, other weights or another seed.
    """
    for name, now in (("digest", plan.digest), ("seed", plan.seed)):
        if state[name] != now:
            raise UserError(
                f"this run cannot be resumed in the same order: the data plan's {name} was {state[name]} and is {now}; "
                f"give the datasets, layers, weights and seed of the run, or begin a new one"
            )
    return int(state["consumed"])


class Loader:
    """An endless iterator over the batches of one rank: its share of each ``global_batch`` positions of ``plan``.

    A batch is a dictionary: arrays as tensors ``[B, *shape]``, other fields as lists, ``__key__`` as the list of clip ids and
    ``__position__`` as an int64 tensor ``[B]``, with B = ``global_batch / world``. Tensors are in pinned memory if
    ``pin_memory`` (by default: where CUDA is available). The memory of a batch is used again once nothing refers to it.

    It begins after the first ``consumed`` positions. ``threads`` read ahead of the use, as many batches as fit into
    ``prefetch_mib``, but at least 1 and at most 32. Batches come in order; so does the first error, and it ends the loader.

    A damaged sample is replaced by the plan's replacement for its position, whichever rank meets it; too many of them, for
    ``max_damaged_share``, are a :class:`DamageError` (see :class:`shards.faults.DamageLimit`).

    Where ``torch.distributed`` is initialised, constructing the loader is a collective call, in which the ranks prove to each
    other that they follow the same plan from the same position and that their first batches are disjoint. Ranks that
    share a model, and so must read the same, give the same ``rank``.

    Raises :class:`UserError` if the datasets do not fit the plan or each other, if the batch cannot be divided, and if
    the ranks disagree. Use it in a ``with`` statement, or close it: that ends its threads.
    """

    def __init__(
        self,
        datasets: Sequence[ShardedDataset],
        plan: Plan,
        global_batch: int,
        *,
        rank: int = 0,
        world: int = 1,
        consumed: int = 0,
        threads: int = 2,
        prefetch_mib: int = 512,
        max_damaged_share: float = 0.001,
        pin_memory: bool | None = None,
    ) -> None:
        _check_datasets(datasets, plan)
        self._datasets = tuple(datasets)
        self._plan = plan
        self._global_batch = global_batch
        self._positions = rank_positions(consumed, global_batch, rank, world)
        self._consumed = consumed
        self._limit = DamageLimit(max_damaged_share)
        self._memory = _BatchMemory(torch.cuda.is_available() if pin_memory is None else pin_memory)
        share = global_batch // world
        sample_nbytes = max(dataset.sample_nbytes for dataset in datasets)
        self._ahead = min(max(1, prefetch_mib * 2**20 // (share * sample_nbytes)), _MOST_AHEAD)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            first = next(rank_positions(consumed, global_batch, rank, world))
            _prove_agreement(plan, first, global_batch, rank, world)
        self._pending: deque[_Pending] = deque()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, thread_name_prefix="shards-loader")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._pool is None:
            raise RuntimeError("this loader is closed")
        try:
            while len(self._pending) <= self._ahead:
                self._pending.append(self._start(next(self._positions)))
            pending = self._pending.popleft()
            damages = [messages for row in pending.rows if (messages := row.result())]
            self._limit.count(len(pending.rows), damages)
        except BaseException:
            self.close()
            raise
        self._consumed += self._global_batch
        return pending.batch

    @property
    def served(self) -> int:
        """How many samples this loader has given out."""
        return self._limit.served

    @property
    def replaced(self) -> int:
        """How many of them were given in the place of a damaged one."""
        return self._limit.replaced

    def state(self) -> dict[str, Any]:
        """Where the run stands: all that :func:`resume` needs after the batches given out so far, on any number of ranks."""
        return {"digest": self._plan.digest, "seed": self._plan.seed, "consumed": self._consumed}

    def close(self) -> None:
        """End the threads and drop what was read ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            self._pending.clear()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _start(self, positions: range) -> "_Pending":
        """Have the threads read the samples at ``positions``, each into its row of a new batch."""
        assert self._pool is not None
        batch: dict[str, Any] = {
            "__key__": [""] * len(positions),
            "__position__": torch.arange(positions.start, positions.stop),
        }
        rows = {}
        for name in self._datasets[0].fields:
            if name in self._datasets[0].arrays:
                dtype, shape = self._datasets[0].arrays[name]
                batch[name], rows[name] = self._memory.tensor(len(positions), dtype, shape)
            else:
                batch[name] = [None] * len(positions)
        return _Pending(
            batch,
            [self._pool.submit(self._fill_row, batch, rows, row, position) for row, position in enumerate(positions)],
        )

    def _fill_row(
        self, batch: dict[str, Any], rows: Mapping[str, npt.NDArray[np.uint8]], row: int, position: int
    ) -> list[str]:
        """Read the sample at ``position``, or a replacement; returns what was wrong with those that could not be read."""
        # Their messages: an error kept here would hold, by its traceback, this very list, and with it the batch.
        damages: list[str] = []
        draw = self._plan.at(position)
        while True:
            try:
                self._read(draw, batch, rows, row)
                return damages
            except DamageError as error:
                damages.append(str(error))
                if len(damages) > _MOST_REPLACEMENTS:
                    raise DamageError(
                        f"{len(damages)} samples in a row are damaged; {error}; see: faceloom verify"
                    ) from None
            try:
                draw = self._plan.replacement(position, len(damages))
            except LookupError:
                raise DamageError(f"all {len(damages)} samples of a dataset are damaged: {damages[0]}") from None

    def _read(self, draw: Draw, batch: dict[str, Any], rows: Mapping[str, npt.NDArray[np.uint8]], row: int) -> None:
        dataset = self._datasets[draw.dataset]
        batch["__key__"][row] = dataset.key(draw.sample)
        for name in dataset.fields:
            if name in rows:
                dataset.read_into(draw.sample, name, rows[name][row])
            else:
                batch[name][row] = dataset.read_file(draw.sample, name)


@dataclass(frozen=True)
class _Pending:
    """A batch that is being filled, one task a row."""

    batch: dict[str, Any]
    rows: list[Future[list[str]]]


@dataclass
class _BatchMemory:
    """Memory for batches, used again when a batch is no more.

    Fresh memory costs as much as the reading: the kernel clears each page when it is first touched (25 MB batches on tmpfs:
    213 samples/s into fresh memory, 450 into used memory). PyTorch keeps pinned memory for use again by itself.
    """

    pin: bool
    _free: dict[int, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)

    def tensor(
        self, count: int, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, npt.NDArray[np.uint8]]:
        """An uninitialised tensor ``[count, *shape]``, and its bytes as an array ``[count, bytes of a row]``."""
        nbytes = count * math.prod(shape) * dtype.itemsize
        if self.pin:
            tensor = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
            memory = tensor.numpy()
        else:
            free = self._free.setdefault(nbytes, [])
            block = free.pop() if free else np.empty(nbytes, np.uint8)
            # The tensor holds this view of the block for as long as any tensor shares its storage. With the view gone, the
            # block is free.
            memory = block[:]
            weakref.finalize(memory, free.append, block).atexit = False
            tensor = torch.from_numpy(memory)
        return tensor.view(dtype).view(count, *shape), memory.reshape(count, -1)


def _check_datasets(datasets: Sequence[ShardedDataset], plan: Plan) -> None:
    """Raises :class:`UserError` unless the plan is one of these datasets, and their samples fit into one batch."""
    if [dataset.digest for dataset in datasets] != [shape.digest for shape in plan.datasets]:
        raise UserError(
            f"the plan was made for the datasets {[shape.digest[:12] for shape in plan.datasets]}, and these are "
            f"{[dataset.digest[:12] for dataset in datasets]} ({', '.join(dataset.root for dataset in datasets)})"
        )
    first = datasets[0]
    for other in datasets[1:]:
        if set(other.fields) != set(first.fields):
            raise UserError(f"{first.root} and {other.root} are read with different fields, and cannot share a batch")
        for name in first.arrays:
            if other.arrays[name] != first.arrays[name]:
                ours, theirs = first.arrays[name], other.arrays[name]
                raise UserError(
                    f"field {name!r} is {ours[0]} {list(ours[1])} in {first.root} and {theirs[0]} {list(theirs[1])} in "
                    f"{other.root}; one batch cannot hold both: make the datasets with the same configuration"
                )


def _prove_agreement(plan: Plan, positions: range, global_batch: int, rank: int, world: int) -> None:
    """Exchange with all processes what is to be read first; raises :class:`UserError` in each if they do not fit together.

    The digest of the plan is over those of the datasets, and they fix the clip of every sample number.
    """
    mine = {
        "rank": rank,
        "plan": [plan.digest, plan.seed],
        "batch": [positions.start - rank * len(positions), global_batch, world],
        "draws": [tuple(plan.at(position)) for position in positions],
    }
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    for name, meaning in (("plan", "datasets and seed"), ("batch", "position, global batch and world size")):
        different = sorted({json.dumps(theirs[name]) for theirs in everyone})
        if len(different) > 1:
            raise UserError(f"the ranks do not read by the same plan; their {meaning} are: {'; '.join(different)}")
    draws = {theirs["rank"]: theirs["draws"] for theirs in everyone}
    if sorted(draws) != list(range(world)):
        raise UserError(
            f"{len(everyone)} processes read as the ranks {[theirs['rank'] for theirs in everyone]}, which is not all of "
            f"{world}: samples would be read twice, or not at all; give each process its own rank"
        )
    drawn = Counter(draw for of_rank in draws.values() for draw in of_rank)
    twice = [str(draw) for draw, times in drawn.items() if times > 1]
    if twice:
        raise UserError(f"the ranks' first batches are not disjoint; read more than once: {', '.join(twice[:3])}")
