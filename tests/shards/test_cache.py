import fcntl
import hashlib
import logging
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from faceloom.errors import UserError
from shards.cache import ShardCache
from shards.dataset import DatasetRecord, index_path, tar_path
from shards.index import DamageError, read_index, read_layer_file, write_index
from shards.reader import ShardedDataset
from tests.shards.conftest import build_dataset, clip_key, sample_values
from tests.shards.layered import add_latents

SPAWN = multiprocessing.get_context("spawn")


class Origin:
    """A remote folder (fsspec's memory file system) that counts what is fetched from it."""

    def __init__(self) -> None:
        self.url = "memory://origin"
        self.files = fsspec.filesystem("memory")
        self.fetched: list[str] = []

    def put(self, name: str, data: bytes) -> tuple[str, str]:
        """The URL and sha256 of a new file."""
        self.files.pipe_file(f"/origin/{name}", data)
        return f"{self.url}/{name}", hashlib.sha256(data).hexdigest()

    def put_folder(self, root: Path) -> None:
        for path in root.rglob("*.*"):
            self.put(str(path.relative_to(root)), path.read_bytes())


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    origin = Origin()
    opened = type(origin.files).open

    def counting(files: object, path: str, mode: str = "rb", **options: object) -> object:
        if mode == "rb":
            origin.fetched.append(path.rpartition("/")[2])
        return opened(files, path, mode, **options)

    monkeypatch.setattr(type(origin.files), "open", counting)
    yield origin
    origin.files.store.clear()


def content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def test_a_file_is_fetched_once(origin: Origin, tmp_path: Path) -> None:
    url, sha256 = origin.put("a.tar", b"abc" * 1000)
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    for _ in range(3):
        assert content(cache.open(url, sha256)) == b"abc" * 1000
    assert content(ShardCache(tmp_path / "cache", 1 << 20).open(url, sha256)) == b"abc" * 1000
    assert origin.fetched == ["a.tar"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [sha256]


def test_an_empty_file_stays_empty(origin: Origin, tmp_path: Path) -> None:
    assert content(ShardCache(tmp_path / "cache", 1 << 20).open(*origin.put("a.tar", b""))) == b""


def test_a_file_that_changed_at_its_origin_is_not_taken_for_the_old_one(origin: Origin, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    url, old = origin.put("a.tar", b"old")
    os.close(cache.open(url, old))
    _, new = origin.put("a.tar", b"new")
    assert content(cache.open(url, new)) == b"new"
    assert content(cache.open(url, old)) == b"old"


def test_a_wrong_file_is_fetched_twice_and_then_named(origin: Origin, tmp_path: Path) -> None:
    url, _ = origin.put("a.tar", b"not what is listed")
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    with pytest.raises(DamageError, match=r"memory://origin/a\.tar: is not the file that the dataset lists"):
        cache.open(url, "0" * 64)
    assert origin.fetched == ["a.tar"] * 2
    assert not list((tmp_path / "cache").iterdir())


def test_a_failing_transfer_is_tried_again(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, sha256 = origin.put("a.tar", b"abc")
    size = type(origin.files).size
    failures = [TimeoutError("no answer")]

    def fail_once(files: object, path: str) -> int:
        if failures:
            raise failures.pop()
        return size(files, path)

    monkeypatch.setattr(type(origin.files), "size", fail_once)
    assert content(ShardCache(tmp_path / "cache", 1 << 20).open(url, sha256)) == b"abc"


def test_a_missing_file_is_named(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(DamageError, match=r"memory://origin/b\.tar: missing"):
        ShardCache(tmp_path / "cache", 1 << 20).open(f"{origin.url}/b.tar", "0" * 64)


def test_a_full_disk_is_not_taken_for_damage(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    url, sha256 = origin.put("a.tar", b"abc")
    with pytest.raises(UserError, match=r"no room for memory://origin/a\.tar: No space left on device"):
        ShardCache(tmp_path / "cache", 1 << 20).open(url, sha256)
    assert not list((tmp_path / "cache").iterdir())


def test_the_least_recently_opened_copies_make_room(origin: Origin, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 300)
    files = [origin.put(name, name.encode() * 50) for name in ("aa", "bb", "cc", "dd")]
    for number in (0, 1, 2, 0, 3):
        os.close(cache.open(*files[number]))
        time.sleep(0.01)  # beyond the resolution of the file system's clock
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {files[n][1] for n in (0, 2, 3)}


def test_what_else_lies_in_the_folder_is_left_alone(origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "of mine").mkdir(parents=True)
    (folder / "thesis.docx").write_bytes(b"x" * 1000)
    cache = ShardCache(folder, 100)
    for name in ("aa", "bb"):
        os.close(cache.open(*origin.put(name, name.encode() * 50)))
    assert (folder / "thesis.docx").exists()
    assert (folder / "of mine").exists()


def test_a_copy_in_use_is_not_evicted_but_the_cache_says_that_it_is_too_small(
    origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ShardCache(tmp_path / "cache", 150)
    first, second, third = (origin.put(name, name.encode() * 100) for name in "abc")
    held = cache.open(*first)
    with caplog.at_level(logging.WARNING):
        os.close(cache.open(*second))
        os.close(cache.open(*third))
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {first[1], third[1]}
    assert len([record for record in caplog.records if "files in use exceed" in record.message]) == 1
    assert content(held) == b"a" * 100


def test_what_a_process_left_that_died_in_a_download_is_no_obstacle(origin: Origin, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 150)
    url, sha256 = origin.put("a.tar", b"a" * 100)
    for name in (sha256, "f" * 64):
        (tmp_path / "cache" / f"{name}.part").write_bytes(b"half of a longer file" * 10)
    assert content(cache.open(url, sha256)) == b"a" * 100
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [sha256]


def test_a_cache_pickles_to_its_settings(tmp_path: Path) -> None:
    copy = pickle.loads(pickle.dumps(ShardCache(tmp_path / "cache", 5)))  # noqa: S301
    assert (copy.folder, copy.max_bytes) == (tmp_path / "cache", 5)


def read_all(root: Path, folder: Path, max_bytes: int, log: Path, rounds: int) -> None:
    """In a process of its own: read a dataset through a cache, noting each file that is fetched."""
    files = fsspec.filesystem("file")
    opened = type(files).open

    def noting(self: object, path: str, *args: object, **options: object) -> object:
        with log.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(f"{Path(path).name}\n")
        return opened(self, path, *args, **options)

    type(files).open = noting
    for _ in range(rounds):
        samples = ShardedDataset(f"file://{root}", ["pose.npy"], cache=ShardCache(folder, max_bytes))
        for sample in samples:
            np.testing.assert_array_equal(sample["pose.npy"].numpy(), sample_values(sample["__key__"])["pose.npy"])


@pytest.mark.parametrize("room", ["for all", "for one"])
def test_two_processes_share_a_cache(tmp_path: Path, room: str) -> None:
    root = build_dataset(tmp_path / "dataset", clips=24)
    folder, log = tmp_path / "cache", tmp_path / "log"
    max_bytes = 1 << 30 if room == "for all" else tar_path(root, 0).stat().st_size + 100_000
    rounds = 1 if room == "for all" else 3
    processes = [SPAWN.Process(target=read_all, args=(root, folder, max_bytes, log, rounds)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    fetched = log.read_text().splitlines()
    if room == "for all":
        assert len(set(fetched)) == len(fetched) == 2 * 7  # the tars and indexes of the parts that hold samples
    assert not list(folder.glob("*.part"))


def hold_lock(path: Path, ready: object) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    ready.set()
    time.sleep(60)


def test_a_lock_ends_with_the_process_that_held_it(origin: Origin, tmp_path: Path) -> None:
    url, sha256 = origin.put("a.tar", b"abc")
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    ready = SPAWN.Event()
    process = SPAWN.Process(target=hold_lock, args=(tmp_path / "cache" / f"{sha256}.part", ready))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join()
    assert content(cache.open(url, sha256)) == b"abc"


@pytest.fixture
def remote(origin: Origin, tmp_path: Path) -> Callable[[], ShardedDataset]:
    """A dataset with a layer at the origin; gives it as a process sees it that starts anew."""
    origin.put_folder(add_latents(build_dataset(tmp_path / "dataset")))
    fields = ["pose.npy", "latents/reference_moments.safetensors"]
    return lambda: ShardedDataset(origin.url, fields, cache=ShardCache(tmp_path / "cache", 1 << 30))


def test_a_remote_dataset_is_the_same_as_a_local_one(remote: Callable[[], ShardedDataset], tmp_path: Path) -> None:
    local = ShardedDataset(tmp_path / "dataset", ["pose.npy", "latents/reference_moments.safetensors"])
    samples = remote()
    assert (samples.digest, samples.shard_sizes) == (local.digest, local.shard_sizes)
    for ours, theirs in zip(samples, local, strict=True):
        assert ours["__key__"] == theirs["__key__"]
        assert all(ours[field].equal(theirs[field]) for field in samples.fields)


def test_a_remote_dataset_that_is_not_there_is_named_by_its_url(origin: Origin, tmp_path: Path) -> None:
    origin.put("other", b"")
    with pytest.raises(UserError, match=r"no readable dataset at memory://origin: memory://origin/dataset\.json"):
        ShardedDataset(origin.url, ["pose.npy"], cache=ShardCache(tmp_path / "cache", 1 << 30))


@pytest.mark.parametrize("kind", ["tar byte", "tar cut short", "index byte"])
def test_a_damaged_copy_is_fetched_anew_and_nothing_is_lost(
    remote: Callable[[], ShardedDataset], origin: Origin, tmp_path: Path, kind: str
) -> None:
    list(remote())
    record = DatasetRecord.load(tmp_path / "dataset")
    entry = read_index(index_path(tmp_path / "dataset", 0)).entry(clip_key(2), "pose.npy")
    digest = record.shards[0].index_sha256 if kind == "index byte" else record.shards[0].sha256
    copy = tmp_path / "cache" / digest
    if kind == "tar cut short":
        os.truncate(copy, entry.offset)
    else:
        data = bytearray(copy.read_bytes())
        data[entry.offset + 5 if kind == "tar byte" else 500] ^= 1
        copy.write_bytes(data)
    origin.fetched.clear()
    for sample in remote():
        np.testing.assert_array_equal(sample["pose.npy"].numpy(), sample_values(sample["__key__"])["pose.npy"])
    suffix = ".parquet" if kind == "index byte" else ".tar"
    assert [name for name in origin.fetched if not name.endswith(".json")] == [f"part-00000.base{suffix}"]


def test_a_copy_damaged_under_an_open_reader_is_fetched_anew(
    remote: Callable[[], ShardedDataset], origin: Origin, tmp_path: Path
) -> None:
    samples = remote()
    list(samples)
    copy = tmp_path / "cache" / DatasetRecord.load(tmp_path / "dataset").shards[0].sha256
    os.truncate(copy, 0)
    np.testing.assert_array_equal(samples[1]["pose.npy"].numpy(), sample_values(clip_key(2))["pose.npy"])
    assert len(list(samples)) == 4


def test_a_file_that_is_as_listed_but_at_odds_with_its_index_is_fetched_once_more_and_no_more(
    origin: Origin, tmp_path: Path
) -> None:
    root = build_dataset(tmp_path / "dataset")
    record = DatasetRecord.load(root)
    index = read_index(index_path(root, 0))
    wrong = tuple(replace(entry, crc32c=entry.crc32c ^ 1) for entry in index.entries)
    write_index(index_path(root, 0), replace(index, entries=wrong))
    shards = (read_layer_file(root, 0), *record.shards[1:])
    record.model_copy(update={"shards": shards}).save(root)
    origin.put_folder(root)
    samples = ShardedDataset(origin.url, ["pose.npy"], cache=ShardCache(tmp_path / "cache", 1 << 30))
    for i in (0, 1, 0):
        with pytest.raises(DamageError, match=r"part-00000\.base\.tar: .* its crc32c differs from the index"):
            samples[i]
    assert origin.fetched.count("part-00000.base.tar") == 2


def test_damage_at_the_origin_is_found_without_fetching_for_ever(
    remote: Callable[[], ShardedDataset], origin: Origin
) -> None:
    data = bytearray(origin.files.cat_file("/origin/shards/part-00000.base.tar"))
    data[5000] ^= 1
    origin.put("shards/part-00000.base.tar", bytes(data))
    samples = remote()
    for _ in range(2):
        for i in (0, 1):
            with pytest.raises(DamageError, match=r"memory://origin/shards/part-00000\.base\.tar: is not the file"):
                samples[i]
    assert origin.fetched.count("part-00000.base.tar") == 2
    assert samples[2]["__key__"] == clip_key(3)
