"""What ``faceloom encode`` refuses before it begins, and what it finds done."""

from pathlib import Path

import pytest

from faceloom import config
from faceloom.errors import UserError
from shards.layers import LayerRecord, layer_ledger_path, layer_record_path
from tests.training.datasets import clip, write_base
from tests.training.tiny import save_vae
from training.encode_config import EncodeConfig, EncodeRunConfig
from training.encode_ledger import read_outcomes, write_fragment
from training.encode_plan import EncodePlan, pool_size, prepare
from training.encoder import Encoded, Failure


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base") / "dataset"
    write_base(root, [(True, False), (False, True), (False, False)])
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


def plan(base: Path, *overrides: str, layer: str = "latents") -> EncodePlan:
    return prepare(config.load(EncodeConfig, None, overrides), base, layer)


def vae(model: Path, *more: str) -> tuple[str, ...]:
    return ("codec.codec=vae", f"codec.vae_model={model}", "codec.device=cpu", *more)


def begin(layer: EncodePlan) -> None:
    """What a run that committed the first part leaves behind."""
    layer.record.save(layer.dataset)
    name = layer.record.layer
    write_fragment(layer.dataset, name, 0, [Encoded(clip(0).clip_id)], layer.record.run)


def test_the_work_is_the_samples_of_the_base_in_its_parts(base: Path) -> None:
    fresh = plan(base)
    assert (fresh.samples, fresh.samples_done, fresh.finished) == (2, 0, False)
    work = [(part, [s.clip_id for s in samples]) for part, samples in fresh.blocks_left()]
    assert work == [(0, [clip(0).clip_id]), (1, [clip(3).clip_id]), (2, [])]


def test_parts_with_a_fragment_are_done(base: Path) -> None:
    begin(plan(base, layer="latents-begun"))
    again = plan(base, layer="latents-begun")
    assert (again.done, again.samples_done, again.finished) == ({0}, 1, False)
    assert [part for part, _ in again.blocks_left()] == [1, 2]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("landmarks.mode=relative", "landmarks.mode: self → relative"),
        ("landmarks.style=fye", "landmarks.style: a1_3d → fye"),
        ("layout=ref1+48", "layout: contiguous49 → ref1+48"),
    ],
)
def test_another_config_is_refused_by_its_difference(base: Path, change: str, difference: str) -> None:
    begin(plan(base, layer="latents-config"))
    with pytest.raises(UserError, match="--layer latents-NAME") as refused:
        plan(base, change, layer="latents-config")
    assert f"  {difference}\n" in str(refused.value)


def test_threads_decide_a_vaes_last_bits_and_nothing_of_pixels(base: Path, model: Path) -> None:
    begun = plan(base, layer="latents-pixels")
    begin(begun)
    assert plan(base, "run.threads=2", layer="latents-pixels").record.fingerprint == begun.record.fingerprint
    begin(plan(base, *vae(model), layer="latents-threads"))
    with pytest.raises(UserError, match=r"run\.threads: 1 → 2"):
        plan(base, *vae(model), "run.threads=2", layer="latents-threads")


def test_other_weights_are_refused_by_both_fingerprints(base: Path, model: Path, tmp_path: Path) -> None:
    begun = plan(base, *vae(model), layer="latents-vae")
    begin(begun)
    other = save_vae(tmp_path, seed=1)
    with pytest.raises(UserError, match="--layer latents-NAME") as refused:
        plan(base, *vae(other), layer="latents-vae")
    assert begun.record.fingerprint in str(refused.value)
    assert plan(base, *vae(other), layer="latents-other").record.fingerprint in str(refused.value)


def test_how_the_work_is_spread_changes_nothing(base: Path) -> None:
    begun = plan(base, layer="latents-spread")
    begin(begun)
    again = plan(base, "run.workers=3", "run.cpus=0.5", "run.held_mib=9", "codec.slicing=true", layer="latents-spread")
    assert again.record.fingerprint == begun.record.fingerprint


def test_where_the_weights_lie_changes_nothing(base: Path, model: Path, tmp_path: Path) -> None:
    begin(plan(base, *vae(model), layer="latents-moved"))
    moved = save_vae(tmp_path / "elsewhere")
    assert plan(base, *vae(moved), layer="latents-moved").done == {0}


def test_a_base_that_was_made_anew_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    record = write_base(root, [(True, False)])
    begin(plan(root))
    record.model_copy(update={"config_fingerprint": "d" * 64}).save(root)
    with pytest.raises(UserError, match="made from another dataset"):
        plan(root)


def test_a_fragment_of_another_run_is_refused_though_its_record_is_gone(base: Path) -> None:
    begin(plan(base, layer="latents-gone"))
    layer_record_path(base, "latents-gone").unlink()
    assert plan(base, layer="latents-gone").done == {0}
    with pytest.raises(UserError, match=r"part-00000\.parquet was written for a layer made otherwise"):
        plan(base, "landmarks.mode=relative", layer="latents-gone")


def test_an_unreadable_fragment_is_named(base: Path) -> None:
    begin(plan(base, layer="latents-torn"))
    layer_ledger_path(base, "latents-torn", 0).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"part-00000\.parquet cannot be read .*; delete it"):
        plan(base, layer="latents-torn")


@pytest.mark.parametrize("layer", ["base", "flow", "latents/x", "latents-", "latents-A", "Latents"])
def test_a_name_that_is_no_layer_of_latents_is_refused(base: Path, layer: str) -> None:
    with pytest.raises(UserError, match="--layer"):
        plan(base, layer=layer)


def test_cuda_without_a_gpu_reserved_is_refused(base: Path) -> None:
    with pytest.raises(UserError, match=r"set run\.gpus"):
        plan(base, "codec.device=cuda")


def test_a_complete_layer_is_finished_until_a_fragment_is_gone(base: Path) -> None:
    name = "latents-complete"
    begin(plan(base, layer=name))
    run = plan(base, layer=name).record.run
    write_fragment(base, name, 1, [Encoded(clip(3).clip_id)], run)
    write_fragment(base, name, 2, [], run)
    record = LayerRecord.load(base, name, plan(base).base)
    record.model_copy(update={"complete": True}).save(base)
    assert plan(base, layer=name).finished
    layer_ledger_path(base, name, 2).unlink()
    assert not plan(base, layer=name).finished


def test_the_ledger_numbers_the_encoded_and_explains_the_failed(tmp_path: Path) -> None:
    broken = Failure("read", "DamageError", "it is damaged", of_sample=True)
    write_fragment(tmp_path, "latents", 0, [Encoded("a"), Encoded("b", broken), Encoded("c")], "run")
    rows = read_outcomes(tmp_path, "latents", 1).to_pylist()
    assert [(row["clip_id"], row["outcome"], row["shard_sample"]) for row in rows] == [
        ("a", "encoded", 0),
        ("b", "failed", None),
        ("c", "encoded", 1),
    ]
    assert (rows[1]["stage"], rows[1]["error"], rows[1]["message"]) == ("read", "DamageError", "it is damaged")


def test_a_cluster_without_room_for_one_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="1 GPU; the cluster has 8 CPU and 0 GPU"):
        pool_size(EncodeRunConfig(gpus=1), {"CPU": 8.0})
