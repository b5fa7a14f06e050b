import gc
import json
import logging
import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from faceloom.errors import UserError
from shards import reader
from shards.dataset import DatasetRecord, index_path, tar_path
from shards.index import DamageError, read_index
from shards.layers import LayerRecord, layer_record_path
from shards.reader import ShardedDataset
from tests.shards.conftest import build_dataset, clip_key, sample_values
from tests.shards.layered import add_latents, latent_values

KEYS = [clip_key(n) for n in (0, 2, 3, 5)]  # what build_dataset keeps, in order
ALL = ["video.mp4", "landmarks.u16.npy", "blendshapes.npy", "pose.npy", "flow.npy", "meta.json"]
MOMENTS = "latents/video_moments.safetensors"


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build_dataset(tmp_path_factory.mktemp("layered"))
    add_latents(root)
    return add_latents(root, "latents-other", failed={KEYS[0]}, fingerprint="a" * 64)


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.uint16).numpy()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_samples_come_in_the_order_of_the_parts_with_what_was_written(dataset: Path) -> None:
    samples = list(ShardedDataset(dataset, ALL))
    assert [sample["__key__"] for sample in samples] == KEYS
    for sample in samples:
        values = sample_values(sample["__key__"])
        assert list(sample) == ["__key__", *ALL]
        for field in ALL:
            value = sample[field].numpy() if isinstance(sample[field], torch.Tensor) else sample[field]
            np.testing.assert_equal(value, values[field])


def test_lengths_and_array_shapes_are_known_without_reading_a_sample(dataset: Path) -> None:
    samples = ShardedDataset(dataset, ALL)
    assert len(samples) == 4
    assert samples.shard_sizes == (2, 2, 0)
    assert samples.arrays["flow.npy"] == (torch.float16, (13, 60, 90))
    assert samples.arrays["landmarks.u16.npy"] == (torch.uint16, (49, 478, 3))
    assert set(samples.arrays) == {field for field in ALL if field.endswith(".npy")}


def test_indices_are_those_of_a_sequence(dataset: Path) -> None:
    samples = ShardedDataset(dataset, ["pose.npy"])
    assert samples[-1]["__key__"] == KEYS[-1]
    for outside in (4, -5):
        with pytest.raises(IndexError):
            samples[outside]


def test_bfloat16_arrays_of_a_layer_keep_their_bits(layered: Path) -> None:
    sample = ShardedDataset(layered, [MOMENTS, "pose.npy"])[2]
    assert sample[MOMENTS].dtype == torch.bfloat16
    np.testing.assert_array_equal(bits(sample[MOMENTS]), latent_values(KEYS[2], "latents")["video_moments.safetensors"])
    np.testing.assert_array_equal(sample["pose.npy"].numpy(), sample_values(KEYS[2])["pose.npy"])


def test_samples_that_a_layer_lacks_are_named_and_not_counted(layered: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = "latents-other/reference_moments.safetensors"
    with caplog.at_level(logging.WARNING):
        samples = ShardedDataset(layered, ["pose.npy", other])
    assert f"1 of 4 samples are left out: {KEYS[0]} (not in latents-other)" in caplog.text
    assert (len(samples), samples.shard_sizes, samples.excluded_count) == (3, (1, 2, 0), 1)
    assert list(samples.excluded()) == [(KEYS[0], "latents-other")]
    for sample in samples:
        values = sample_values(sample["__key__"])
        np.testing.assert_array_equal(sample["pose.npy"].numpy(), values["pose.npy"])
        latents = latent_values(sample["__key__"], "latents-other")["reference_moments.safetensors"]
        np.testing.assert_array_equal(bits(sample[other]), latents)
    assert [sample["__key__"] for sample in samples] == KEYS[1:]


def test_two_layers_that_lack_different_samples_of_a_part_are_joined_by_clip(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "two")
    add_latents(root, failed={KEYS[0]})
    add_latents(root, "latents-other", failed={KEYS[1], KEYS[3]})
    samples = ShardedDataset(root, [MOMENTS, "latents-other/video_moments.safetensors"])
    assert [sample["__key__"] for sample in samples] == [KEYS[2]]
    assert samples.shard_sizes == (0, 1, 0)
    assert list(samples.excluded()) == [
        (KEYS[0], "latents"),
        (KEYS[1], "latents-other"),
        (KEYS[3], "latents-other"),
    ]


def test_only_the_bytes_of_the_wanted_fields_are_read(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ShardedDataset(dataset, ["pose.npy", "flow.npy"])
    got = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: got.append(preadv(*args)) or got[-1])
    samples[1]
    index = read_index(index_path(dataset, 0))
    assert sorted(got) == sorted(index.entry(KEYS[1], field).nbytes for field in ("pose.npy", "flow.npy"))


def test_a_layer_is_read_without_the_tars_of_the_base(tmp_path: Path) -> None:
    root = add_latents(build_dataset(tmp_path / "dataset"))
    for part in range(3):
        tar_path(root, part).unlink()
        index_path(root, part).unlink()
    assert [sample["__key__"] for sample in ShardedDataset(root, [MOMENTS])] == KEYS


def test_an_array_is_read_into_the_buffer_it_is_meant_for(dataset: Path) -> None:
    samples = ShardedDataset(dataset, ["flow.npy"])
    expected = sample_values(KEYS[3])["flow.npy"]
    batch = torch.zeros(2, 13, 60, 90, dtype=torch.float16)
    samples.read_into(3, "flow.npy", batch[1])
    np.testing.assert_array_equal(batch[1].numpy(), expected)
    assert not batch[0].any()
    raw = bytearray(expected.nbytes)
    samples.read_into(3, "flow.npy", memoryview(raw))
    assert raw == expected.tobytes()


def test_a_buffer_of_another_size_is_refused(dataset: Path) -> None:
    with pytest.raises(UserError, match=rf"{KEYS[0]}\.flow\.npy has the shape \(13, 60, 90\)"):
        ShardedDataset(dataset, ["flow.npy"]).read_into(0, "flow.npy", torch.empty(12, 60, 90, dtype=torch.float16))


def test_short_reads_are_continued(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ShardedDataset(dataset, ["pose.npy", "meta.json"])
    preadv = os.preadv

    def ten_bytes(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        first = next(buffer for buffer in buffers if buffer.nbytes)
        return preadv(descriptor, [first[:10]], offset)

    monkeypatch.setattr(os, "preadv", ten_bytes)
    sample = samples[2]
    np.testing.assert_array_equal(sample["pose.npy"].numpy(), sample_values(KEYS[2])["pose.npy"])
    assert sample["meta.json"]["clip_id"] == KEYS[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["depth.npy"], "layer 'base' has no such field; it has: video.mp4, "),
        (["latents/flow.npy"], "layer 'latents' has no such field; it has: video_moments.safetensors, "),
        (["masks/face.npy"], "unknown layer 'masks'"),
        (["latents-fp32/video_moments.safetensors"], "has no layer 'latents-fp32' (there is: latents, latents-other)"),
        ([], "no fields to read"),
    ],
)
def test_a_field_that_is_not_there_is_refused(layered: Path, fields: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        ShardedDataset(layered, fields)
    assert message in str(error.value)


def test_an_optional_field_that_the_samples_lack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = {"smirk.npy", "smirk_shape.npy", "smirk_crop.npy"}
    monkeypatch.setattr("tests.shards.conftest.FIELDS", [field for field in reader.FIELDS if field not in without])
    root = build_dataset(tmp_path / "dataset")
    with pytest.raises(UserError, match=r"part-00000.base.parquet: its samples have no field 'smirk.npy'"):
        ShardedDataset(root, ["pose.npy", "smirk.npy"])


def test_a_layer_of_another_fingerprint_is_refused_with_both(layered: Path) -> None:
    assert len(ShardedDataset(layered, [MOMENTS], expect={"latents": "e" * 64})) == 4
    with pytest.raises(UserError) as error:
        ShardedDataset(layered, [MOMENTS], expect={"latents": "b" * 64})
    assert "e" * 64 in str(error.value)
    assert "b" * 64 in str(error.value)


def test_an_expectation_that_nothing_can_meet_is_refused(layered: Path) -> None:
    with pytest.raises(UserError, match="'latents', but none of the fields is in it"):
        ShardedDataset(layered, ["pose.npy"], expect={"latents": "e" * 64})


def test_a_layer_of_another_base_is_refused(tmp_path: Path, layered: Path) -> None:
    root = build_dataset(tmp_path / "dataset", clips=7)
    (root / "layers").mkdir()
    layer_record_path(root, "latents").write_bytes(layer_record_path(layered, "latents").read_bytes())
    with pytest.raises(UserError, match="made from another dataset"):
        ShardedDataset(root, [MOMENTS])


def test_an_unfinished_dataset_or_layer_is_refused(tmp_path: Path) -> None:
    root = add_latents(build_dataset(tmp_path / "dataset"))
    record = DatasetRecord.load(root)
    LayerRecord.load(root, "latents", record).model_copy(update={"complete": False}).save(root)
    with pytest.raises(UserError, match=r"layer 'latents' .* is not complete"):
        ShardedDataset(root, [MOMENTS])
    record.model_copy(update={"complete": False}).save(root)
    with pytest.raises(UserError, match="is not complete; run the same `faceloom curate`"):
        ShardedDataset(root, ["pose.npy"])


def test_the_digest_is_that_of_the_layers_read(layered: Path, tmp_path: Path) -> None:
    digest = ShardedDataset(layered, [MOMENTS]).digest
    assert digest == ShardedDataset(layered, ["latents/landmark_latents.safetensors", "pose.npy"]).digest
    assert digest != ShardedDataset(layered, ["pose.npy"]).digest
    assert digest != ShardedDataset(layered, ["latents-other/video_moments.safetensors"]).digest
    twin = add_latents(build_dataset(tmp_path / "twin"))
    assert digest == ShardedDataset(twin, [MOMENTS]).digest
    other = build_dataset(tmp_path / "other", clips=7)
    assert ShardedDataset(other, ["pose.npy"]).digest != ShardedDataset(layered, ["pose.npy"]).digest


def test_open_files_are_bounded_and_closed_with_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = add_latents(build_dataset(tmp_path / "dataset", clips=24))
    monkeypatch.setattr(reader, "OPEN_SHARDS", 2)
    gc.collect()  # what other tests left open
    before = open_files()
    samples = ShardedDataset(root, [MOMENTS, "pose.npy"])
    for _ in range(2):
        for sample in samples:
            assert open_files() - before <= 2 * 2 + 2
            np.testing.assert_array_equal(sample["pose.npy"], sample_values(sample["__key__"])["pose.npy"])
    del samples, sample
    gc.collect()
    assert open_files() == before


def test_many_threads_read_right_while_shards_are_opened_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_dataset(tmp_path / "dataset", clips=18)
    monkeypatch.setattr(reader, "OPEN_SHARDS", 1)
    samples = ShardedDataset(root, ["pose.npy", "blendshapes.npy"])
    expected = [sample_values(samples.key(i))["blendshapes.npy"] for i in range(len(samples))]
    wrong: list[object] = []

    def read(seed: int) -> None:
        try:
            chosen = np.random.default_rng(seed).integers(0, len(samples), 200).tolist()
            wrong.extend(i for i in chosen if not np.array_equal(samples[i]["blendshapes.npy"].numpy(), expected[i]))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_it_survives_pickling(layered: Path) -> None:
    samples = ShardedDataset(layered, [MOMENTS, "meta.json"])
    samples[0]
    copy = pickle.loads(pickle.dumps(samples))  # noqa: S301
    assert (copy.digest, copy.arrays, copy.shard_sizes) == (samples.digest, samples.arrays, samples.shard_sizes)
    assert copy[3]["meta.json"] == samples[3]["meta.json"]


def test_a_fork_reads_even_if_a_thread_held_the_lock(dataset: Path) -> None:
    samples = ShardedDataset(dataset, ["meta.json"])
    samples[0]
    with samples._lock, samples._opening[0], samples._opening[1]:
        process = multiprocessing.get_context("fork").Process(target=samples.__getitem__, args=(0,))
        process.start()
    process.join(timeout=20)
    process.kill()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_torch_dataloader_takes_it_as_it_is(layered: Path, workers: int) -> None:
    samples = ShardedDataset(layered, [MOMENTS, "landmarks.u16.npy"])
    batches = list(DataLoader(samples, batch_size=2, num_workers=workers, shuffle=False))
    assert [key for batch in batches for key in batch["__key__"]] == KEYS
    moments = [latent_values(key, "latents")["video_moments.safetensors"] for key in KEYS]
    np.testing.assert_array_equal(bits(torch.cat([batch[MOMENTS] for batch in batches])), np.stack(moments))


def test_a_grain_pipeline_takes_it_as_it_is(dataset: Path) -> None:
    grain = pytest.importorskip("grain")
    samples = ShardedDataset(dataset, ["pose.npy"])
    shuffled = list(grain.MapDataset.source(samples).shuffle(seed=1))
    assert sorted(sample["__key__"] for sample in shuffled) == sorted(KEYS)


@pytest.mark.parametrize("where", ["header", "numbers"])
def test_a_flipped_byte_is_found_and_named(tmp_path: Path, where: str) -> None:
    root = build_dataset(tmp_path / "dataset")
    entry = read_index(index_path(root, 1)).entry(KEYS[2], "flow.npy")
    data = bytearray(tar_path(root, 1).read_bytes())
    data[entry.offset + (20 if where == "header" else entry.nbytes - 1)] ^= 1
    tar_path(root, 1).write_bytes(data)
    samples = ShardedDataset(root, ["flow.npy"])
    with pytest.raises(DamageError, match=rf"part-00001\.base\.tar: {KEYS[2]}\.flow\.npy is damaged"):
        samples[2]
    np.testing.assert_array_equal(samples[3]["flow.npy"].numpy(), sample_values(KEYS[3])["flow.npy"])


def test_damage_outside_of_the_wanted_fields_does_no_harm(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    entry = read_index(index_path(root, 0)).entry(KEYS[0], "video.mp4")
    data = bytearray(tar_path(root, 0).read_bytes())
    data[entry.offset + 30] ^= 1
    tar_path(root, 0).write_bytes(data)
    assert len(list(ShardedDataset(root, ["flow.npy"]))) == 4
    with pytest.raises(DamageError, match=r"video\.mp4 is damaged"):
        ShardedDataset(root, ["video.mp4"])[0]


def test_a_tar_that_is_cut_short_is_found_where_it_matters(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    entry = read_index(index_path(root, 0)).entry(KEYS[1], "pose.npy")
    os.truncate(tar_path(root, 0), entry.offset + 100)
    samples = ShardedDataset(root, ["pose.npy"])
    assert samples[0]["__key__"] == KEYS[0]
    with pytest.raises(DamageError, match=rf"{KEYS[1]}\.pose\.npy is cut short: 100 of {entry.nbytes} bytes"):
        samples[1]


@pytest.mark.parametrize("damage", ["tar deleted", "index deleted", "index altered", "index of another part"])
def test_a_shard_that_cannot_be_trusted_changes_no_number(tmp_path: Path, damage: str) -> None:
    root = build_dataset(tmp_path / "dataset")
    before = ShardedDataset(root, ["pose.npy"])
    if damage == "tar deleted":
        tar_path(root, 0).unlink()
    elif damage == "index deleted":
        index_path(root, 0).unlink()
    elif damage == "index altered":
        data = bytearray(index_path(root, 0).read_bytes())
        data[300] ^= 1
        index_path(root, 0).write_bytes(data)
    else:
        index_path(root, 0).write_bytes(index_path(root, 1).read_bytes())
    samples = ShardedDataset(root, ["pose.npy"])
    assert (samples.shard_sizes, samples.digest) == (before.shard_sizes, before.digest)
    errors = []
    for i in (0, 1):
        with pytest.raises(DamageError) as error:
            samples[i]
        errors.append(str(error.value))
    file = tar_path(root, 0) if damage == "tar deleted" else index_path(root, 0)
    reason = "missing" if "deleted" in damage else "not the index that the dataset lists (its sha256 differs)"
    assert errors == [f"{file}: {reason}"] * 2
    assert [samples[i]["__key__"] for i in (2, 3)] == KEYS[2:]


def test_a_dataset_without_a_readable_shard_says_so(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    for part in range(3):
        tar_path(root, part).unlink()
    with pytest.raises(DamageError, match=r"part-00000\.base\.tar: missing"):
        ShardedDataset(root, ["pose.npy"])


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    tree = json.loads((root / "dataset.json").read_text())
    tree["shards"][0]["samples"] = 3
    (root / "dataset.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="was changed after it was written"):
        ShardedDataset(root, ["pose.npy"])


def test_a_remote_dataset_needs_a_cache() -> None:
    with pytest.raises(UserError, match="give the dataset a cache"):
        ShardedDataset("s3://bucket/dataset", ["pose.npy"])
