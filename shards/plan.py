"""Which sample comes at which position: a pure function, the same on every rank, of any world size, after any restart.

A plan is an infinite sequence of positions 0, 1, 2, … Position p is drawn by arithmetic alone, so that a run which has
consumed p positions goes on at p without replaying or remembering anything: a checkpoint's share of it is three values,
the plan's digest, the seed and the number of positions consumed.

**One dataset.** An epoch is a run of ``len(dataset)`` positions that holds every sample exactly once. Its shards that are not
empty are permuted by a key of (seed, epoch, digest); each ``WINDOW_SHARDS`` consecutive shards of that order are a window,
and the samples of a window are permuted among themselves. So a reader has the files of one window open (of two while it
crosses from one to the next), and never sees two epochs, seeds or datasets in the same order.

**Several datasets.** Positions come in periods of ``PERIOD``. Each dataset has a quota of every period, its share of
the weights, rounded by largest remainder; a key of (seed, period) deals the slots of the period to the datasets. A dataset
runs through epochs of its own, whatever the others do: its k-th slot of period q is its position ``q * quota + k``. To mix
datasets by their sizes, give their sizes as weights.

**Batches.** Nothing is dropped and nothing is padded: a batch may hold the end of one epoch and the start of the next, and
every rank gets ``global_batch / world`` positions of every batch. The batch size is no part of the plan: it may change on
resume.

**How well it shuffles.** 100 shards of 256 samples, against a permutation of all 25 600 (``bench/shuffle.py``),
windows send a sample as far from its place in storage (0.333 of the epoch on average) and from its place in the epoch before
(0.337 against 0.333); neighbours correlate by 0.04 in their storage place (0.00) and are of one shard in 7 % of cases (1 %);
a batch of 512 is drawn from 16 shards (99); and 2.7 % of its pairs meet in a batch again in the next epoch (2.0 %). Where
neighbouring shards hold the same people, ``faceloom shards repack --shuffle`` once makes up for the rest.

The order is the same for ever. It rests on the raw stream of numpy's Philox, which numpy guarantees (the methods of its
``Generator`` it does not), on a stable sort, and on blake2b; the tests pin it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from faceloom.errors import UserError

WINDOW_SHARDS = 16
PERIOD = 4096

_VERSION = 1  # of the order: another one makes another digest, so that no run resumes in an order it did not begin in
_EPOCHS_KEPT = 2
_WINDOWS_KEPT = 4  # a reader that prefetches is in two windows at a time


@dataclass(frozen=True)
class DatasetShape:
    """What a plan knows of a dataset: its ``digest``, the samples of each shard in reading order, its weight in the mix.

    ``weight`` is relative to the other datasets' and has no meaning for a dataset alone.
    """

    digest: str
    shard_sizes: tuple[int, ...]
    weight: float = 1.0


class Draw(NamedTuple):
    """What is read at a position: ``sample`` (its number in the reading order) of dataset number ``dataset``."""

    dataset: int
    sample: int
    epoch: int
    """How often the dataset has been gone through before."""


class Plan:
    """The sequence of samples that the module describes. Safe to use from several threads; pickles to a few bytes a shard.

    Raises :class:`UserError` for a dataset without samples and for a weight that is not positive or too small for a slot.
    """

    def __init__(self, datasets: Sequence[DatasetShape], seed: int) -> None:
        self.datasets = tuple(datasets)
        self.seed = seed
        self._orders = [_Order(shape, seed) for shape in self.datasets]
        self._quotas = _quotas(self.datasets)
        self._slots = lru_cache(maxsize=_EPOCHS_KEPT)(self._deal_slots)

    def __reduce__(self) -> tuple[type["Plan"], tuple[tuple[DatasetShape, ...], int]]:
        return Plan, (self.datasets, self.seed)

    @property
    def digest(self) -> str:
        """Identifies everything but the seed that the order depends on: the datasets, their weights, the algorithm. Hex."""
        parts = [
            [shape.digest, [int(size) for size in shape.shard_sizes], quota]
            for shape, quota in zip(self.datasets, self._quotas, strict=True)
        ]
        text = json.dumps([_VERSION, WINDOW_SHARDS, PERIOD, parts])
        return hashlib.sha256(text.encode()).hexdigest()

    def at(self, position: int) -> Draw:
        """The draw at ``position`` (0 or more)."""
        if position < 0:
            raise IndexError(f"position {position}: positions count from 0")
        period, slot = divmod(position, PERIOD)
        slots, ranks = self._slots(period)
        dataset = int(slots[slot])
        epoch, sample = self._orders[dataset].at(period * self._quotas[dataset] + int(ranks[slot]))
        return Draw(dataset, sample, epoch)

    def replacement(self, position: int, attempt: int) -> Draw:
        """What to read at ``position`` when its own sample is damaged, and then the first ``attempt - 1`` replacements too.

        The attempts 1, 2, … are different samples of the same dataset, none of them the damaged one, uniformly drawn by a
        key of (seed, position): on which rank the damage is met does not matter. A replacement is seen
        once more in its epoch than the others. Raises ``LookupError`` when the dataset has no further sample.
        """
        damaged = self.at(position)
        total = len(self._orders[damaged.dataset])
        if not 1 <= attempt < total:
            raise LookupError(f"position {position}: {total} samples leave no replacement number {attempt}")
        stream = _stream("replacement", self.seed, position)
        tried = {damaged.sample: None}  # a dictionary, since it keeps the order
        while len(tried) <= attempt:
            tried.setdefault(int(stream.random_raw() % total))
        return Draw(damaged.dataset, list(tried)[attempt], damaged.epoch)

    def _deal_slots(self, period: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The dataset of each slot of a period, and the slot's rank among those of its dataset; both ``[PERIOD]``."""
        slots = np.repeat(np.arange(len(self._quotas)), self._quotas)[permutation(PERIOD, "slots", self.seed, period)]
        ranks = np.empty(PERIOD, np.int64)
        for dataset, quota in enumerate(self._quotas):
            ranks[slots == dataset] = np.arange(quota)
        return slots, ranks


def rank_positions(consumed: int, global_batch: int, rank: int, world: int) -> Iterator[range]:
    """The positions that ``rank`` of ``world`` reads, batch after batch without end, once ``consumed`` were consumed by all.

    Batch b is the ``global_batch`` positions from ``consumed + b * global_batch`` on, and rank r has the r-th of ``world``
    equal runs of it: the ranks' runs put one after the other are the batch, for every world size.
    Raises :class:`UserError` if the batch cannot be divided equally.
    """
    if global_batch < 1 or global_batch % world:
        lower, upper = global_batch // world * world, (global_batch // world + 1) * world
        choice = f"{lower} or {upper}" if lower > 0 else str(upper)
        raise UserError(
            f"a global batch of {global_batch} cannot be shared equally by {world} ranks; make it {choice}, "
            f"or run on a number of ranks that divides it"
        )
    if not 0 <= rank < world or consumed < 0:
        raise ValueError(f"rank {rank} of {world} after {consumed} positions")
    return _runs(consumed, global_batch, rank, global_batch // world)


def _runs(consumed: int, global_batch: int, rank: int, share: int) -> Iterator[range]:
    while True:
        first = consumed + rank * share
        yield range(first, first + share)
        consumed += global_batch


class _Order:
    """The epochs of one dataset. What an access computes is kept for the accesses near it."""

    def __init__(self, shape: DatasetShape, seed: int) -> None:
        sizes = np.array(shape.shard_sizes, np.int64)
        if not sizes.sum():
            raise UserError(f"the dataset {shape.digest[:12]} has no samples to train on; leave it out")
        self._shards = np.flatnonzero(sizes)
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._total = int(sizes.sum())
        self._key = (seed, shape.digest)
        self._epoch = lru_cache(maxsize=_EPOCHS_KEPT)(self._order_shards)
        self._window = lru_cache(maxsize=_WINDOWS_KEPT)(self._order_samples)

    def __len__(self) -> int:
        return self._total

    def at(self, position: int) -> tuple[int, int]:
        """Epoch and sample number at a position of this dataset alone."""
        epoch, within = divmod(position, self._total)
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, within, side="right"))
        first = int(ends[window - 1]) if window else 0
        return epoch, int(self._window(epoch, window)[within - first])

    def _order_shards(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The shards of an epoch in order, and where in the epoch each window ends."""
        shards = self._shards[permutation(len(self._shards), "shards", *self._key, epoch)]
        per_window = np.add.reduceat(self._sizes[shards], np.arange(0, len(shards), WINDOW_SHARDS))
        return shards, np.cumsum(per_window)

    def _order_samples(self, epoch: int, window: int) -> npt.NDArray[np.int64]:
        """The sample numbers of a window in order."""
        shards = self._epoch(epoch)[0][window * WINDOW_SHARDS : (window + 1) * WINDOW_SHARDS]
        samples = np.concatenate([self._starts[shard] + np.arange(self._sizes[shard]) for shard in shards])
        return samples[permutation(len(samples), "samples", *self._key, epoch, window)]


def _quotas(datasets: Sequence[DatasetShape]) -> list[int]:
    """The slots of each dataset in a period: its share of the weights, rounded so that they add up (largest remainder)."""
    for number, shape in enumerate(datasets):
        if not 0 < shape.weight < float("inf"):
            raise UserError(
                f"dataset {number} ({shape.digest[:12]}) has weight {shape.weight}; leave it out, or give > 0"
            )
    total = sum(Fraction(shape.weight) for shape in datasets)  # exact: the same quotas on every machine
    shares = [Fraction(shape.weight) * PERIOD / total for shape in datasets]
    quotas = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda number: (quotas[number] - shares[number], number))
    for number in by_remainder[: PERIOD - sum(quotas)]:
        quotas[number] += 1
    for number, quota in enumerate(quotas):
        if not quota:
            raise UserError(
                f"dataset {number} has {float(shares[number] / PERIOD):.2g} of the weights, which is less than one sample "
                f"in {PERIOD}; raise its weight or leave it out"
            )
    return quotas


def permutation(count: int, *key: int | str) -> npt.NDArray[np.intp]:
    """The permutation of ``count`` things that belongs to ``key``: an array ``[count]``, the same for ever."""
    return np.argsort(_stream(*key).random_raw(count), kind="stable")


def _stream(*key: int | str) -> np.random.Philox:
    """A stream of 64-bit numbers that belongs to ``key``."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
    return np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64))
