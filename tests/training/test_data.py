"""Batches for training: which samples, what is in them, what is refused, and how they end."""

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, tar_path
from shards.index import DamageError
from shards.layers import LayerRecord
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from shards.video import decode_video
from tests.training.datasets import OWN_FRAMES, REFERENCE_FRAME, add_latents, clip, sample_of, write_base
from tests.training.test_schedule import CONFIG_5B
from tests.training.tiny import save_vae
from training.codec import CodecConfig, load_codec
from training.conditioning import model_inputs
from training.data import HeldOut, TrainingData
from training.data_config import DataConfig, ReferenceConfig, WeightConfig
from training.encode_config import EncodeConfig, RenderConfig
from training.guider import PictureEncoder
from training.loss_weight import sample_weight
from training.pixels import PixelsCodec
from training.prepared import Prepared, Recipe
from training.randomness import Chances, Shapes, choose, draw
from training.schedule import NoiseSchedule
from training.shrink import shrunk

KEPT = (0, 1, 3)
MOMENTS, DRAWINGS, REFERENCE = (
    f"latents/{name}.safetensors" for name in ("video_moments", "landmark_latents", "reference_moments")
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples in two of three parts, encoded in both layouts."""
    root = tmp_path_factory.mktemp("data") / "dataset"
    write_base(root, [(True, True), (False, True), (False, False)])
    add_latents(root)
    return add_latents(root, "latents-ref", EncodeConfig(layout="ref1+48", landmarks=RenderConfig(mode="relative")))


def recipe(data: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    sections = {
        "data": DataConfig(**{"face_tokens": "patches", "prefetch_mib": 16} | (data or {})),
        "codec": CodecConfig(),
        "reference": ReferenceConfig(),
        "weight": WeightConfig(),
    }
    return Recipe(**sections | changes)


def take(
    count: int, data: TrainingData, micro: int = 2, rank: int = 0, world: int = 1, consumed: int = 0
) -> list[Prepared]:
    with data.batches(micro, rank, world, consumed) as batches:
        return list(islice(batches, count))


def tensors(batch: Prepared) -> dict[str, torch.Tensor]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)} | {
        f.name: getattr(batch.draws, f.name) for f in fields(batch.draws)
    }
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def joined(batches: Sequence[Prepared]) -> dict[str, torch.Tensor]:
    parts = [tensors(batch) for batch in batches]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_a_batch_holds_the_samples_of_the_plan_as_the_dataset_stores_them(dataset: Path) -> None:
    (batch,) = take(1, TrainingData([dataset], recipe()), micro=3)
    stored = ShardedDataset(dataset, [MOMENTS, DRAWINGS, REFERENCE, "face_tokens.npy"])
    plan = Plan([DatasetShape(stored.digest, stored.shard_sizes)], seed=0)
    samples = [stored[plan.at(position).sample] for position in range(3)]
    assert list(batch.clip_ids) == [sample["__key__"] for sample in samples]
    for name, field in (
        ("video", MOMENTS),
        ("landmarks", DRAWINGS),
        ("reference", REFERENCE),
        ("face_tokens", "face_tokens.npy"),
    ):
        assert torch.equal(getattr(batch, name), torch.stack([sample[field] for sample in samples])), name
    assert batch.renders is None
    assert batch.reference_pixels is None
    assert batch.scale == 1.0
    assert len(batch) == 3


def test_each_sample_has_its_own_weight_and_the_draws_of_its_position(dataset: Path) -> None:
    chosen = recipe(face_dropout=0.5, landmark_dropout=0.3, seed=4)
    (batch,) = take(1, TrainingData([dataset], chosen), micro=4, consumed=8)
    numbers = {clip(number).clip_id: number for number in KEPT}
    for row, clip_id in enumerate(batch.clip_ids):
        wanted = sample_weight(sample_of(numbers[clip_id]), WeightConfig(), "contiguous49")
        np.testing.assert_array_equal(batch.weight[row].numpy(), wanted.weight)
    assert not batch.weight[:, OWN_FRAMES // 4 + 1 :].any()
    assert batch.above_1 == pytest.approx(float((batch.weight[:, :12] * 12 / 13 > 1.001).float().mean()), abs=0.01)
    wanted_draws = draw(4, range(8, 12), Shapes((13, 16, 60, 90), posterior=False), Chances(0.5, 0.3, 0.05))
    for field in fields(wanted_draws):
        value = getattr(wanted_draws, field.name)
        assert value is None or torch.equal(getattr(batch.draws, field.name), value), field.name


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_takes_the_same_samples_with_the_same_draws(dataset: Path, world: int) -> None:
    data = TrainingData([dataset], recipe({"shrink": 15}))
    alone = take(2, data, micro=4)
    ranks = [take(2, data, micro=4 // world, rank=rank, world=world) for rank in range(world)]
    for step in range(2):
        together = joined([ranks[rank][step] for rank in range(world)])
        for name, values in joined(alone[step : step + 1]).items():
            assert torch.equal(together[name], values), name
        assert [clip_id for rank in ranks for clip_id in rank[step].clip_ids] == list(alone[step].clip_ids)


def test_a_resumed_run_goes_on_where_it_was(dataset: Path) -> None:
    data = TrainingData([dataset], recipe({"shrink": 15}))
    whole, resumed = take(5, data), take(2, data, consumed=6)
    for before, after in zip(whole[3:], resumed, strict=True):
        assert before.clip_ids == after.clip_ids
        assert all(torch.equal(value, tensors(after)[name]) for name, value in tensors(before).items())


def test_another_stage_reads_by_the_same_plan(dataset: Path) -> None:
    cached, rendered = (TrainingData([dataset], recipe(landmarks=kind)) for kind in ("cached", "rendered"))
    assert cached.plan.digest == rendered.plan.digest


@pytest.mark.parametrize("layer", [{"layer": "latents"}, {"layer": "latents-ref", "layout": "ref1+48"}])
def test_rendered_landmarks_are_the_drawings_that_the_layer_was_encoded_from(
    dataset: Path, layer: dict[str, Any]
) -> None:
    cached, rendered = (
        take(1, TrainingData([dataset], recipe(layer, landmarks=kind)), micro=1)[0] for kind in ("cached", "rendered")
    )
    assert rendered.landmarks is None
    assert rendered.renders is not None
    assert (rendered.renders.shape, rendered.renders.dtype) == ((1, 49, 480, 720, 3), torch.uint8)
    encoded = PixelsCodec().encode_landmarks(rendered.renders[0].numpy())
    np.testing.assert_array_equal(encoded, cached.landmarks[0].view(torch.uint16).numpy())


def test_a_shrunk_batch_has_larger_cells(dataset: Path) -> None:
    (full,), (small,) = (take(1, TrainingData([dataset], recipe({"shrink": shrink}))) for shrink in (1, 5))
    for name in ("video", "landmarks", "reference"):
        torch.testing.assert_close(getattr(small, name), shrunk(getattr(full, name), 5), atol=0, rtol=0)
    weights = full.weight.double().numpy().reshape(*full.weight.shape[:-2], 12, 5, 18, 5).mean(axis=(-3, -1))
    np.testing.assert_allclose(small.weight.double().numpy(), weights, rtol=1e-5)
    assert small.draws.noise.shape == (2, 13, 16, 12, 18)


def test_a_noised_reference_is_the_stored_picture(dataset: Path) -> None:
    chosen = recipe(reference=ReferenceConfig(noise=True))
    (batch,) = take(1, TrainingData([dataset], chosen))
    numbers = {clip(number).clip_id: number for number in KEPT}
    assert batch.reference is None
    assert batch.reference_pixels is not None
    for row, clip_id in enumerate(batch.clip_ids):
        stored = cv2.imdecode(
            np.frombuffer(sample_of(numbers[clip_id])["reference.jpg"], np.uint8), cv2.IMREAD_COLOR_RGB
        )
        np.testing.assert_array_equal(batch.reference_pixels[row].numpy(), stored)
    assert batch.draws.pixel_noise is not None
    assert batch.draws.pixel_noise.shape == (2, 3, 480, 720)


@pytest.mark.parametrize("frame", ["first", "random_in_clip"])
def test_another_frame_of_the_clip_as_the_reference(dataset: Path, frame: Any) -> None:
    (batch,) = take(1, TrainingData([dataset], recipe(reference=ReferenceConfig(frame=frame))), consumed=6)
    numbers = {clip(number).clip_id: number for number in KEPT}
    chosen = [0, 0] if frame == "first" else [choose(0, position, OWN_FRAMES, "reference frame") for position in (6, 7)]
    assert batch.reference_pixels is not None
    for row, clip_id in enumerate(batch.clip_ids):
        video = decode_video(sample_of(numbers[clip_id])["video.mp4"])
        np.testing.assert_array_equal(batch.reference_pixels[row].numpy(), video[chosen[row]])
    assert batch.draws.pixel_noise is None


def test_a_reference_encoded_while_training_is_the_one_of_the_layer(dataset: Path) -> None:
    stored = take(1, TrainingData([dataset], recipe({"shrink": 5})))[0]
    video = decode_video(sample_of(next(n for n in KEPT if clip(n).clip_id == stored.clip_ids[0]))["video.mp4"])
    pixels = torch.from_numpy(video[REFERENCE_FRAME][None])
    encoded = replace(stored, reference=None, reference_pixels=pixels.expand(2, -1, -1, -1))
    found, wanted = (
        model_inputs(batch, NoiseSchedule(CONFIG_5B), PictureEncoder(CodecConfig()), torch.float32).arguments[
            "reference"
        ][0]
        for batch in (encoded, stored)
    )
    torch.testing.assert_close(found, wanted, rtol=2**-7, atol=5e-3)


def test_datasets_are_mixed_by_their_sizes(dataset: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "small", [(False, True)])
    small = add_latents(tmp_path / "small")
    data = TrainingData([dataset, small], recipe({"shrink": 15}))
    assert len(data) == 4
    drawn = [data.plan.at(position).dataset for position in range(4096)]
    assert drawn.count(1) == pytest.approx(4096 / 4, abs=1)


def edited(dataset: Path, tmp_path: Path, **config: Any) -> Path:
    """A copy whose layer says it was made otherwise."""
    root = tmp_path / "edited"
    shutil.copytree(dataset, root)
    base = DatasetRecord.load(root)
    layer = LayerRecord.load(root, "latents", base)
    layer.model_copy(update={"config": {**layer.config, **config}}).save(root)
    return root


def test_another_codec_is_refused_with_both_names(dataset: Path) -> None:
    with pytest.raises(
        UserError, match=r"encoded with the codec pixels, and codec\.codec is vae; set codec\.codec=pixels"
    ):
        TrainingData([dataset], recipe(codec=CodecConfig(codec="vae")))


def test_another_vae_is_refused_and_the_same_one_elsewhere_is_not(dataset: Path, tmp_path: Path) -> None:
    ours, same, other = (save_vae(tmp_path / name, seed) for name, seed in (("ours", 0), ("same", 0), ("other", 1)))
    codec = CodecConfig(codec="vae", vae_model=str(ours), device="cpu")
    root = edited(
        dataset,
        tmp_path,
        codec=codec.model_dump(mode="json", exclude={"device", "slicing"}),
        codec_fingerprint=load_codec(codec).fingerprint,
    )
    TrainingData([root], recipe(codec=codec.model_copy(update={"vae_model": str(same), "dtype": "fp32"})))
    with pytest.raises(
        UserError, match=r"encoded with other weights.*from .*ours.*than those of codec\.vae_model .*other"
    ):
        TrainingData([root], recipe(codec=codec.model_copy(update={"vae_model": str(other)})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"layout": "ref1+48"}}, r"has the layout contiguous49, and data\.layout is ref1\+48"),
        ({"data": {"layer": "latents-ref"}}, r"has the layout ref1\+48, and data\.layout is contiguous49"),
        ({"data": {"layer": "latents-none"}}, "has no layer 'latents-none'"),
        (
            {"data": {"layer": "latents-ref", "layout": "ref1+48"}, "reference": ReferenceConfig(frame="first")},
            r"set reference\.frame=stored",
        ),
        ({"data": {"shrink": 3}, "codec": CodecConfig(codec="vae")}, r"data\.shrink is 3: .* take codec\.codec=pixels"),
    ],
)
def test_what_does_not_fit_the_configuration_is_refused(dataset: Path, changes: dict[str, Any], message: str) -> None:
    for opened in (lambda r: TrainingData([dataset], r), lambda r: HeldOut(dataset, r)):
        with pytest.raises(UserError, match=message):
            opened(recipe(**changes))


def test_face_tokens_that_are_no_embedding_are_refused_unless_named(dataset: Path) -> None:
    with pytest.raises(
        UserError, match=r"are those of patches, and data\.face_tokens is siglip; set data\.face_tokens=patches"
    ):
        TrainingData([dataset], replace(recipe(), data=DataConfig()))


def test_a_layer_that_does_not_say_how_it_was_made_is_refused(dataset: Path, tmp_path: Path) -> None:
    root = edited(dataset, tmp_path)
    layer = LayerRecord.load(root, "latents", DatasetRecord.load(root))
    layer.model_copy(update={"config": {"codec": {"codec": "pixels"}}}).save(root)
    with pytest.raises(UserError, match="does not say how it was made; encode it again"):
        TrainingData([root], recipe())


def test_datasets_with_other_drawings_cannot_be_mixed(dataset: Path, tmp_path: Path) -> None:
    other = edited(dataset, tmp_path, landmarks={"mode": "relative", "style": "a1_3d"})
    with pytest.raises(UserError, match="cannot be mixed"):
        TrainingData([dataset, other], recipe())


def test_a_dataset_without_samples_is_named(tmp_path: Path) -> None:
    write_base(tmp_path / "empty", [(False,)])
    add_latents(tmp_path / "empty")
    for opened in (lambda: TrainingData([tmp_path / "empty"], recipe()), lambda: HeldOut(tmp_path / "empty", recipe())):
        with pytest.raises(UserError, match="empty holds no sample"):
            opened()


@pytest.mark.timeout(120, func_only=True)  # without the remembered error, the second call waits for ever
def test_too_much_damage_ends_the_batches_and_stays_the_answer(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(dataset, root)
    tar_path(root, 0, "latents").unlink()
    with TrainingData([root], recipe({"shrink": 15})).batches(2, 0, 1, 0) as batches:
        for _ in range(2):
            with pytest.raises(DamageError):
                list(islice(batches, 20))


def test_a_damaged_sample_within_the_limit_is_replaced_and_counted(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(dataset, root)
    tar_path(root, 1, "latents").unlink()
    data = TrainingData([root], recipe({"shrink": 15, "max_damaged_share": 1.0}))
    with data.batches(4, 0, 1, 0) as batches:
        seen = {clip_id for batch in islice(batches, 2) for clip_id in batch.clip_ids}
        assert clip(3).clip_id not in seen
        assert batches.replaced >= 2


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("prepare-batches", "shards-loader"))}


def test_closing_ends_the_threads_even_when_nothing_was_taken(dataset: Path) -> None:
    batches = TrainingData([dataset], recipe({"shrink": 15})).batches(1, 0, 1, 0)
    assert threads()
    batches.close()
    assert not threads()
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_only_a_few_batches_are_made_ahead(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData([dataset], recipe({"shrink": 15}))
    made = threading.Semaphore(0)
    prepare = data._prepare

    def counted(raw: dict[str, Any]) -> Prepared:
        made.release()
        return prepare(raw)

    monkeypatch.setattr(data, "_prepare", counted)
    with data.batches(1, 0, 1, 0):
        for _ in range(3):
            assert made.acquire(timeout=20)
        assert not made.acquire(timeout=0.5)


def test_an_inert_weight_is_said_on_one_rank_only(
    dataset: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loss_weight._WATCHED", 12)
    data = TrainingData([dataset], recipe({"shrink": 15}, weight=WeightConfig(variant="literal")))
    with caplog.at_level(logging.WARNING):
        take(5, data, micro=3, rank=1, world=2)
        assert not caplog.messages
        take(5, data, micro=3)
    assert ["inert" in message for message in caplog.messages] == [True]


@pytest.fixture
def held_out(dataset: Path) -> Iterator[HeldOut]:
    return HeldOut(
        dataset, recipe({"shrink": 15}, face_dropout=1.0, reference=ReferenceConfig(noise=True, dropout=1.0))
    )


def test_held_out_samples_are_the_same_in_any_batch_and_nothing_is_dropped(held_out: HeldOut) -> None:
    assert len(held_out) == len(KEPT)
    together = held_out.prepared([0, 1, 2], 300)
    assert list(together.clip_ids) == [clip(number).clip_id for number in KEPT]
    alone = held_out.prepared([2], 300)
    for name, value in tensors(alone).items():
        assert torch.equal(value[0], tensors(together)[name][2]), name
    assert together.draws.timestep.tolist() == [300] * 3
    assert not (together.draws.drop_face | together.draws.drop_reference | together.draws.drop_landmarks).any()
    assert together.reference is not None


def test_held_out_noise_is_another_at_another_timestep(held_out: HeldOut) -> None:
    one, other = held_out.prepared([0], 300), held_out.prepared([0], 500)
    assert not torch.equal(one.draws.noise, other.draws.noise)
    assert torch.equal(one.video, other.video)


@pytest.mark.parametrize("layer", [{"layer": "latents"}, {"layer": "latents-ref", "layout": "ref1+48"}])
def test_held_out_frames_are_the_pictures_behind_the_latents(dataset: Path, layer: dict[str, Any]) -> None:
    held_out = HeldOut(dataset, recipe(layer))
    latents = torch.from_numpy(PixelsCodec().encode_video(held_out.frames(1)).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(held_out.prepared([1], 100).video[0], latents)
    np.testing.assert_array_equal(held_out.reference(1), decode_video(sample_of(1)["video.mp4"])[REFERENCE_FRAME])
