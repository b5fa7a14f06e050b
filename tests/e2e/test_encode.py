"""``faceloom encode`` by the true command: latents that can be trusted, whatever happened to the run that made them."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, index_path, tar_path
from shards.index import read_index
from shards.layers import LayerRecord
from shards.reader import ShardedDataset
from shards.video import decode_video
from tests.e2e.command import (
    faceloom,
    kill_with_descendants,
    runs_a_method,
    started,
    tree,
    wait_until,
)
from tests.training.datasets import clip, sample_of, write_base
from tests.training.tiny import save_vae
from training.codec import CodecConfig, load_codec
from training.encode_ledger import read_outcomes

pytestmark = pytest.mark.e2e

MOMENTS_FIELD = "video_moments.safetensors"
KEPT = [clip(0).clip_id, clip(1).clip_id, clip(5).clip_id]
ONE_WORKER = ("--set", "run.workers=1")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples in parts 0 and 2; part 1 has none."""
    root = tmp_path_factory.mktemp("to-encode") / "dataset"
    write_base(root, [(True, True), (False, False), (False, True)])
    return root


@pytest.fixture(scope="session")
def encoded(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a layer as a run that nothing happened to writes it."""
    root = tmp_path_factory.mktemp("encoded") / "dataset"
    shutil.copytree(base, root)
    done = faceloom("encode", root, *ONE_WORKER)
    assert "3 encoded, 0 failed" in done.stdout
    return root


def test_a_reader_gets_the_latents_of_every_sample_beside_its_base(encoded: Path) -> None:
    fields = ["meta.json", *(f"latents/{name}" for name in (MOMENTS_FIELD, "landmark_latents.safetensors"))]
    dataset = ShardedDataset(encoded, fields)

    assert [dataset[i]["meta.json"]["clip_id"] for i in range(len(dataset))] == KEPT
    frames = decode_video(sample_of(5)["video.mp4"])
    expected = load_codec(CodecConfig()).encode_video(frames)
    moments = dataset[2][f"latents/{MOMENTS_FIELD}"]
    np.testing.assert_array_equal(moments.view(torch.uint16).numpy(), expected)


def test_the_base_is_untouched_and_verification_finds_all_whole(base: Path, encoded: Path) -> None:
    before = tree(base)
    assert {name: digest for name, digest in tree(encoded).items() if name in before} == before
    faceloom("verify", encoded)


def _fragments(dataset: Path) -> dict[Path, int]:
    """When each committed part was committed."""
    return {path: path.stat().st_mtime_ns for path in dataset.glob("layers/latents/part-*.parquet")}


def _encodes(_: Path, driver: psutil.Process, _committed: dict[Path, int]) -> bool:
    return runs_a_method(driver, "SampleEncoder.encode")


def _writes_a_tar(dataset: Path, _: psutil.Process, _committed: dict[Path, int]) -> bool:
    return any(dataset.glob("shards/.part-0000[02].latents.tar.*"))


def _commits_another_part(dataset: Path, _: psutil.Process, committed: dict[Path, int]) -> bool:
    return len(_fragments(dataset)) > len(committed)


@pytest.mark.slow
def test_killed_with_all_its_workers_at_three_moments_and_resumed(base: Path, encoded: Path, tmp_path: Path) -> None:
    """In one dataset, so that each run goes on from what the last one left."""
    root = tmp_path / "dataset"
    shutil.copytree(base, root)
    committed: dict[Path, int] = {}
    for moment in (_encodes, _writes_a_tar, _commits_another_part):
        with started("encode", root, *ONE_WORKER) as driver:
            wait_until(partial(moment, root, driver, committed), driver)
            kill_with_descendants(driver)
        assert not LayerRecord.load(root, "latents", DatasetRecord.load(root)).complete
        assert _fragments(root).items() >= committed.items(), "a committed part was encoded again"
        committed = _fragments(root)
        assert len(committed) < 3, moment.__name__

    faceloom("encode", root)

    assert tree(root) == tree(encoded)
    assert _fragments(root).items() >= committed.items(), "a committed part was encoded again"


def test_a_finished_layer_is_left_alone(encoded: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in encoded.rglob("*") if path.is_file()}
    assert "nothing to do" in faceloom("encode", encoded).stdout
    assert {path: path.stat().st_mtime_ns for path in encoded.rglob("*") if path.is_file()} == files


def test_another_config_is_refused_with_the_difference_and_the_remedy(encoded: Path) -> None:
    refused = faceloom("encode", encoded, "--set", "landmarks.style=fye", exit_code=2)
    assert "landmarks.style: a1_3d → fye" in refused.stderr
    assert "--layer latents-NAME" in refused.stderr


def test_a_plan_tells_what_is_to_do_and_writes_nothing(base: Path) -> None:
    before = tree(base)
    told = faceloom("encode", base, "--plan").stdout
    assert "3 parts, 3 samples" in told
    assert tree(base) == before


def test_a_damaged_sample_is_one_failed_row_and_no_other_is_lost(base: Path, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(base, root)
    video = read_index(index_path(root, 0)).entry(KEPT[1], "video.mp4")
    with tar_path(root, 0).open("r+b") as stream:
        stream.seek(video.offset + 1000)
        byte = stream.read(1)
        stream.seek(video.offset + 1000)
        stream.write(bytes([byte[0] ^ 1]))

    told = faceloom("encode", root).stdout

    assert "2 encoded, 1 failed" in told
    assert f"{KEPT[1]}.video.mp4 is damaged" in told
    rows = read_outcomes(root, "latents", 3).to_pylist()
    assert [(row["clip_id"], row["outcome"], row["stage"], row["error"]) for row in rows] == [
        (KEPT[0], "encoded", None, None),
        (KEPT[1], "failed", "read", "DamageError"),
        (KEPT[2], "encoded", None, None),
    ]
    dataset = ShardedDataset(root, [f"latents/{MOMENTS_FIELD}"])
    assert (len(dataset), dataset.excluded_count) == (2, 1)
    assert [dataset[i]["__key__"] for i in range(2)] == [KEPT[0], KEPT[2]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker: a VAE's last bits depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_true_vae_makes_a_layer_of_its_own_and_a_reader_refuses_the_wrong_one(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    write_base(root, [(True,)])
    model, layer = save_vae(tmp_path / "vae"), "latents-tiny"
    settings = ("codec.codec=vae", f"codec.vae_model={model}", "codec.device=cpu", "run.workers=1")
    command = ("encode", root, "--layer", layer, *(argument for each in settings for argument in ("--set", each)))

    faceloom(*command)

    made = LayerRecord.load(root, layer, DatasetRecord.load(root)).fingerprint
    field = f"{layer}/{MOMENTS_FIELD}"
    moments = ShardedDataset(root, [field], expect={layer: made})[0][field]
    codec = load_codec(CodecConfig(codec="vae", vae_model=str(model), device="cpu"))
    expected = codec.encode_video(decode_video(sample_of(0)["video.mp4"]))
    np.testing.assert_array_equal(moments.view(torch.uint16).numpy(), expected)

    save_vae(model, seed=1)
    other = faceloom(*command, exit_code=2).stderr.split("→")[1].split()[0]
    with pytest.raises(UserError) as refused:
        ShardedDataset(root, [field], expect={layer: other})
    assert made in str(refused.value)
    assert other in str(refused.value)
