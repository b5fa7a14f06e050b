"""One sample becomes latents of its own decoded pictures, or one failure that says what broke."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from faceloom.errors import UserError
from landmarks.drawing import draw
from landmarks.record import LandmarkRecord
from shards.dataset import DatasetRecord, index_path, tar_path
from shards.index import read_index, write_index
from shards.schema import FRAMES, HEIGHT, WIDTH, decode_field
from shards.video import decode_video
from tests.training.datasets import OWN_FRAMES, REFERENCE_FRAME, clip, sample_of, write_base
from training.drawings import draw_landmarks
from training.encode_config import EncodeConfig, RenderConfig
from training.encode_plan import EncodePlan, prepare
from training.encoder import BaseSample, Encoded, SampleEncoder
from training.pixels import PixelsCodec


@pytest.fixture(scope="module", autouse=True)
def _landmarker(task_file: Path) -> None:
    pass


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_base(tmp_path / "dataset", [(True, True)])
    return tmp_path / "dataset"


def samples_of(plan: EncodePlan) -> list[BaseSample]:
    return [sample for _, samples in plan.blocks_left() for sample in samples]


def encoder_of(root: Path, config: EncodeConfig | None = None) -> SampleEncoder:
    return SampleEncoder(str(root), config or EncodeConfig(), "mediapipe", PixelsCodec.fingerprint)


def test_latents_are_those_of_the_decoded_pictures_and_the_drawn_landmarks(base: Path) -> None:
    encoder, (first, _) = encoder_of(base), samples_of(prepare(EncodeConfig(), base))

    result, fields = encoder.encode(first)

    assert result == Encoded(clip(0).clip_id)
    assert fields is not None
    latents = {name: decode_field(name, data) for name, data in fields.items()}
    sample, codec = sample_of(0), PixelsCodec()
    frames = decode_video(sample["video.mp4"])
    np.testing.assert_array_equal(latents["video_moments.safetensors"], codec.encode_video(frames))
    np.testing.assert_array_equal(
        latents["reference_moments.safetensors"], codec.encode_reference(frames[REFERENCE_FRAME])
    )
    drawn = draw_landmarks(sample, StillBackend(), RenderConfig())
    assert drawn.any()
    np.testing.assert_array_equal(latents["landmark_latents.safetensors"], codec.encode_landmarks(drawn))
    assert len(latents) == 3


def test_the_layout_of_the_release_begins_with_the_reference_frame(base: Path) -> None:
    config = EncodeConfig(layout="ref1+48")
    _, fields = encoder_of(base, config).encode(samples_of(prepare(config, base))[0])

    assert fields is not None
    latents = {name: decode_field(name, data) for name, data in fields.items()}
    sample, codec = sample_of(0), PixelsCodec()
    frames = decode_video(sample["video.mp4"])
    pictures = np.stack([frames[REFERENCE_FRAME], *frames[1:]])
    np.testing.assert_array_equal(latents["video_moments.safetensors"], codec.encode_video(pictures))
    np.testing.assert_array_equal(
        latents["reference_moments.safetensors"], codec.encode_reference(frames[REFERENCE_FRAME])
    )
    drawn = draw_landmarks(sample, StillBackend(), RenderConfig(), "ref1+48")
    np.testing.assert_array_equal(latents["landmark_latents.safetensors"], codec.encode_landmarks(drawn))


def test_a_flipped_byte_is_one_failure_that_names_the_member_and_is_not_the_workers(base: Path) -> None:
    first, second = samples_of(prepare(EncodeConfig(), base))
    video = next(entry for entry in first.entries if entry.field == "video.mp4")
    tar = tar_path(base, 0)
    data = bytearray(tar.read_bytes())
    data[video.offset + video.nbytes // 2] ^= 1
    tar.write_bytes(data)
    encoder = encoder_of(base)

    result, fields = encoder.encode(first)

    assert fields is None
    assert result.failure is not None
    assert (result.failure.stage, result.failure.error, result.failure.of_sample) == ("read", "DamageError", True)
    assert f"{first.clip_id}.video.mp4 is damaged" in result.failure.message
    assert str(base) not in result.failure.message, "equal damage in a copy gives an equal ledger"
    assert encoder.encode(second)[0].failure is None


def test_what_is_the_machines_fault_is_no_outcome(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_codec: PixelsCodec, _frames: np.ndarray) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(PixelsCodec, "encode_video", fail)
    with pytest.raises(MemoryError):
        encoder_of(base).encode(samples_of(prepare(EncodeConfig(), base))[0])


def test_what_breaks_in_the_codec_may_be_the_workers_fault(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_codec: PixelsCodec, _frames: np.ndarray) -> np.ndarray:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(PixelsCodec, "encode_video", fail)
    failure = encoder_of(base).encode(samples_of(prepare(EncodeConfig(), base))[0])[0].failure
    assert failure is not None
    assert (failure.stage, failure.error, failure.of_sample) == ("codec", "RuntimeError", False)


def test_an_encoder_with_other_weights_than_the_commands_does_not_start(base: Path) -> None:
    with pytest.raises(UserError, match="on this node and 0000"):
        SampleEncoder(str(base), EncodeConfig(), "mediapipe", "0" * 64)


class StillBackend:
    """Points where the record has them, or, retargeted, all of them where the reference has its first."""

    name = "mediapipe"

    def own(self, record: LandmarkRecord) -> NDArray[np.float32]:
        return record.points[..., :2]

    def onto(self, driving: LandmarkRecord, reference: LandmarkRecord) -> NDArray[np.float32]:
        assert len(reference) == 1
        return np.broadcast_to(reference.points[:, :1, :2], (len(driving), 478, 2))


def nose(drawn: np.ndarray) -> tuple[float, float]:
    """Centre of the white dot at landmark 4, px."""
    y, x = np.nonzero((drawn == 255).all(axis=-1))
    return float(x.mean()), float(y.mean())


def in_crop(point: np.ndarray) -> np.ndarray:
    """A point of the source of :func:`sample_of` in px of its crop, by hand."""
    return (point[..., :2] * [1920, 1080] - [300, 0]) * [WIDTH / 1620, HEIGHT / 1080]


@pytest.fixture
def sample() -> dict[str, Any]:
    return sample_of(3)


def test_landmarks_are_drawn_where_the_face_is_in_the_crop(sample: dict[str, Any]) -> None:
    drawn = draw_landmarks(sample, StillBackend(), RenderConfig())
    assert (drawn.shape, drawn.dtype) == ((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    points = sample["landmarks.u16.npy"] / 65535 * 2 - 0.5
    for t in (0, 20):
        np.testing.assert_allclose(nose(drawn[t]), in_crop(points[t, 4]), atol=1.5)


def test_frames_that_repeat_the_last_repeat_its_drawing(sample: dict[str, Any]) -> None:
    # The stored landmarks of these frames are not looked at.
    sample["landmarks.u16.npy"][OWN_FRAMES:] = 0
    drawn = draw_landmarks(sample, StillBackend(), RenderConfig())
    assert (drawn[OWN_FRAMES:] == drawn[OWN_FRAMES - 1]).all()
    assert (drawn[OWN_FRAMES - 2] != drawn[OWN_FRAMES - 1]).any()


def test_relative_draws_on_the_face_of_the_reference_frame(sample: dict[str, Any]) -> None:
    drawn = draw_landmarks(sample, StillBackend(), RenderConfig(mode="relative"))
    points = sample["landmarks.u16.npy"] / 65535 * 2 - 0.5
    for t in (0, 20, 48):
        np.testing.assert_allclose(nose(drawn[t]), in_crop(points[REFERENCE_FRAME, 0]), atol=1.5)


@pytest.mark.parametrize("mode", ["self", "relative"])
def test_the_reference_is_drawn_where_its_face_is_in_the_style_of_the_release(
    sample: dict[str, Any], mode: Any
) -> None:
    render = RenderConfig(mode=mode)
    plain, drawn = (draw_landmarks(sample, StillBackend(), render, layout) for layout in ("contiguous49", "ref1+48"))
    np.testing.assert_array_equal(drawn[1:], plain[1:])
    points = in_crop(sample["landmarks.u16.npy"][REFERENCE_FRAME] / 65535 * 2 - 0.5)
    np.testing.assert_array_equal(drawn[0], draw(points, HEIGHT, WIDTH, "a1_2d"))


def test_a_sample_recorded_for_another_backend_is_refused(sample: dict[str, Any]) -> None:
    sample["meta.json"]["landmark_backend"] = "smirk"
    with pytest.raises(ValueError, match="recorded for smirk"):
        draw_landmarks(sample, StillBackend(), RenderConfig())


def test_an_index_that_the_dataset_does_not_list_stops_the_run_and_is_named(base: Path) -> None:
    index = index_path(base, 0)
    write_index(index, replace(read_index(index), entries=read_index(index).entries[::-1]))
    with pytest.raises(UserError, match=r"part-00000\.base\.parquet.*faceloom verify"):
        samples_of(prepare(EncodeConfig(), base))


def test_an_unfinished_base_is_refused(base: Path) -> None:
    DatasetRecord.load(base).model_copy(update={"complete": False}).save(base)
    with pytest.raises(UserError, match="unfinished; finish it first"):
        prepare(EncodeConfig(), base)
