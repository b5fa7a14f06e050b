"""Every kind of damage: found, named once, made up for in the same way whoever meets it, and too much of it is an error."""

import gc
import itertools
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.cache import ShardCache
from shards.dataset import DatasetRecord, index_path, tar_path
from shards.faults import FEW_SERVED, DamageLimit
from shards.index import DamageError, read_index
from shards.loader import Loader
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from tests.shards.conftest import build_dataset, sample_values

FIELD = "pose.npy"
BATCHES = 14  # of two: two epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 samples, two in each of 7 shards."""
    return build_dataset(tmp_path_factory.mktemp("whole") / "dataset", clips=24)


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(whole, tmp_path / "dataset")


def member(root: Path, sample: int) -> tuple[Path, int, int, str]:
    """The tar of a sample, offset and size of its pose there, and the member's name."""
    part, row = divmod(sample, 2)
    index = read_index(index_path(root, part))
    entry = index.entry(index.keys[row], FIELD)
    return tar_path(root, part), entry.offset, entry.nbytes, entry.member


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def flip_a_number(root: Path) -> None:
    tar, offset, nbytes, _ = member(root, 4)
    flip(tar, offset + nbytes - 3)


def flip_in_the_npy_header(root: Path) -> None:
    tar, offset, _, _ = member(root, 4)
    flip(tar, offset + 40)


def truncate_the_tar(root: Path) -> None:
    tar, offset, _, _ = member(root, 5)
    os.truncate(tar, offset + 10)


def delete_the_tar(root: Path) -> None:
    tar_path(root, 2).unlink()


def delete_the_index(root: Path) -> None:
    index_path(root, 2).unlink()


def flip_in_the_index(root: Path) -> None:
    flip(index_path(root, 2), 400)


def take_the_index_of_another_part(root: Path) -> None:
    shutil.copy(index_path(root, 3), index_path(root, 2))


# The damage, the samples it costs, and what the message names.
MATRIX = [
    (flip_a_number, [4], "part-00002.base.tar: {4} is damaged: its crc32c differs"),
    (flip_in_the_npy_header, [4], "part-00002.base.tar: {4} is damaged: its crc32c differs"),
    (truncate_the_tar, [5], "part-00002.base.tar: {5} is cut short: 10 of"),
    (delete_the_tar, [4, 5], "part-00002.base.tar: missing"),
    (delete_the_index, [4, 5], "part-00002.base.parquet: missing"),
    (flip_in_the_index, [4, 5], "part-00002.base.parquet: not the index that the dataset lists"),
    (take_the_index_of_another_part, [4, 5], "part-00002.base.parquet: not the index that the dataset lists"),
]
every_damage = pytest.mark.parametrize(
    ("damage", "lost", "message"), MATRIX, ids=[damage.__name__ for damage, _, _ in MATRIX]
)
Damage = Callable[[Path], None]


def plan_of(samples: ShardedDataset) -> Plan:
    return Plan([DatasetShape(samples.digest, samples.shard_sizes)], seed=1)


def read_keys(root: Path, rank: int = 0, world: int = 1, global_batch: int = 2) -> list[str]:
    """The clips that one rank gets in two epochs, each checked to have its own numbers."""
    samples = ShardedDataset(root, [FIELD])
    keys = []
    with Loader([samples], plan_of(samples), global_batch, rank=rank, world=world) as loader:
        for batch in itertools.islice(loader, BATCHES * 2 // global_batch):
            for row, key in enumerate(batch["__key__"]):
                np.testing.assert_array_equal(batch[FIELD][row].numpy(), sample_values(key)[FIELD])
                keys.append(key)
    return keys


@every_damage
def test_what_is_lost_is_what_was_damaged(
    whole: Path, root: Path, damage: Damage, lost: list[int], message: str
) -> None:
    samples = ShardedDataset(whole, [FIELD])
    plan = plan_of(samples)
    damage(root)
    for position, (key, original) in enumerate(zip(read_keys(root), read_keys(whole), strict=True)):
        if plan.at(position).sample in lost:
            readable = (plan.replacement(position, attempt).sample for attempt in itertools.count(1))
            assert key == samples.key(next(sample for sample in readable if sample not in lost))
        else:
            assert key == original


@every_damage
def test_damage_is_named_once(
    root: Path, damage: Damage, lost: list[int], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = {f"{{{sample}}}": member(root, sample)[3] for sample in (4, 5)}
    for place, name in names.items():
        message = message.replace(place, name)
    damage(root)
    with caplog.at_level(logging.WARNING):
        read_keys(root)
    assert [message in record.message for record in caplog.records] == [True]
    assert str(root) in caplog.text


@every_damage
def test_the_replacement_is_the_same_on_any_number_of_ranks(
    root: Path, damage: Damage, lost: list[int], message: str
) -> None:
    damage(root)
    ranks = [read_keys(root, rank, world=2, global_batch=4) for rank in range(2)]
    together = [key for batch in range(BATCHES // 2) for rank in ranks for key in rank[2 * batch : 2 * batch + 2]]
    assert together == read_keys(root) == read_keys(root)


def test_replacements_are_counted(root: Path) -> None:
    delete_the_tar(root)
    samples = ShardedDataset(root, [FIELD])
    with Loader([samples], plan_of(samples), 2) as loader:
        for _ in range(BATCHES):
            next(loader)
        assert (loader.served, loader.replaced) == (28, 4)


def test_damage_does_not_hold_on_to_batches(root: Path) -> None:
    delete_the_tar(root)
    samples = ShardedDataset(root, [FIELD])
    gc.disable()  # what only the collector of cycles would find, a long run would gather
    try:
        with Loader([samples], plan_of(samples), 2, prefetch_mib=0, max_damaged_share=1) as loader:
            seen = {next(loader)[FIELD].data_ptr() for _ in range(5 * BATCHES)}
    finally:
        gc.enable()
    assert loader.replaced > 10
    assert len(seen) <= 4


def test_a_copy_in_the_cache_is_replaced_and_no_sample_lost(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read() -> list[str]:
        cache = ShardCache(tmp_path / "cache", 1 << 30)
        samples = ShardedDataset(f"file://{whole}", [FIELD], cache=cache)
        with Loader([samples], plan_of(samples), 2, max_damaged_share=0) as loader:
            return [key for batch in itertools.islice(loader, BATCHES) for key in batch["__key__"]]

    before = read()
    _, offset, _, _ = member(whole, 4)
    flip(tmp_path / "cache" / DatasetRecord.load(whole).shards[2].sha256, offset + 200)
    assert read() == before
    assert not caplog.records


def test_too_much_damage_ends_the_run_with_the_names(root: Path) -> None:
    delete_the_tar(root)
    samples = ShardedDataset(root, [FIELD])
    plan = plan_of(samples)
    first = next(position for position in itertools.count() if plan.at(position).sample in (4, 5))
    with Loader([samples], plan, 1, max_damaged_share=0) as loader:
        for _ in range(first):
            next(loader)
        with pytest.raises(DamageError) as error:
            next(loader)
    assert f"1 of {first + 1} samples were damaged, more than the share of 0 that is allowed" in str(error.value)
    assert f"{tar_path(root, 2)}: missing" in str(error.value)
    assert "faceloom verify" in str(error.value)


def test_a_dataset_without_one_good_sample_is_an_error(root: Path) -> None:
    samples = ShardedDataset(root, [FIELD])
    for part in range(7):
        os.truncate(tar_path(root, part), 0)
    with Loader([samples], plan_of(samples), 2) as loader, pytest.raises(DamageError, match="all 14 samples"):
        next(loader)


@pytest.mark.parametrize(
    ("share", "served", "allowed"),
    [(0.001, 1, 10), (0.001, FEW_SERVED, 10), (0.001, 5 * FEW_SERVED, 50), (1e-6, 1, 1), (0.0, 5 * FEW_SERVED, 0)],
)
def test_the_share_allows(share: float, served: int, allowed: int) -> None:
    limit = DamageLimit(share)
    limit.count(max(0, served - allowed - 1), [])
    for number in range(allowed):
        limit.count(1, [[f"tar {number}"]])
    with pytest.raises(DamageError, match=f"{allowed + 1} of "):
        limit.count(1, [["one more"]])
