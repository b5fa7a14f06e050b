import itertools
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curation import flow
from curation.flow import FlowConfig, FlowEstimator
from faceloom.errors import UserError
from tests import fetched


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def estimator(model: str = "raft-small", **settings: object) -> FlowEstimator:
    config = FlowConfig.model_validate({"model": model, "device": "cpu", **settings})
    return FlowEstimator(config, fetched.model(model))


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise at several sizes, so that no part looks like another: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.GaussianBlur(rng.standard_normal((height, width, 3)), (0, 0), sigma) * sigma for sigma in (1.5, 4, 12)
    )
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(shifts: list[tuple[int, int]], height: int, width: int) -> np.ndarray:
    """A textured image that has moved by (dx, dy) px in each frame: uint8 [T, height, width, 3]."""
    margin = 40
    image = texture(height + 2 * margin, width + 2 * margin)
    return np.stack([image[margin - dy :, margin - dx :][:height, :width] for dx, dy in shifts])


class FakeEstimator:
    """Flow as a function of the frames it is given, without a network."""

    def pairs(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        for a, b in itertools.pairwise(frames):
            yield np.abs(b[..., :2].astype(np.float32) - a[..., :2]) / 8


@pytest.mark.parametrize("model", ["raft-small", "raft-large"])
def test_a_translated_image_gives_its_translation(model):
    frames = moving([(0, 0), (5, 3), (3, 6)], 240, 320)
    first, second = estimator(model).pairs(frames)
    inner = np.s_[32:-32, 32:-32]
    assert np.median(first[inner], axis=(0, 1)) == pytest.approx([5, 3], abs=0.2)
    assert np.median(second[inner], axis=(0, 1)) == pytest.approx([-2, 3], abs=0.2)


def test_flow_of_shrunk_frames_is_in_px_of_the_given_frames():
    frames = moving([(0, 0), (12, -8)], 250, 330)
    (field,) = estimator(scale=0.5).pairs(frames)
    assert field.shape == (250, 330, 2)
    assert field.dtype == np.float32
    assert np.median(field[32:-32, 32:-32], axis=(0, 1)) == pytest.approx([12, -8], abs=0.5)


def test_a_frame_smaller_than_rafts_minimum_is_padded_and_cut_back():
    (field,) = estimator(iterations=2).pairs(moving([(0, 0), (1, 0)], 90, 75))
    assert field.shape == (90, 75, 2)


@pytest.mark.parametrize("model", ["raft-small", "raft-large"])
def test_the_own_forward_pass_equals_torchvisions(model):
    subject = estimator(model, iterations=3, batch_pairs=2)
    frames = moving([(0, 0), (2, 1), (1, 3), (4, 4)], 128, 160)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = flow.load_raft(model, fetched.model(model))(images[:-1], images[1:], num_flow_updates=3)[-1]
    found = np.stack(list(subject.pairs(frames)))
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-4)


def test_the_same_frames_give_the_same_bits():
    frames = moving([(0, 0), (2, 1), (4, 1)], 128, 160)
    runs = [np.stack(list(estimator(iterations=4).pairs(frames))).tobytes() for _ in range(2)]
    assert runs[0] == runs[1]


def test_another_thread_count_than_the_configured_one_is_refused():
    subject = estimator(threads=2)
    with pytest.raises(RuntimeError, match=r"torch runs 1 threads, flow\.threads is 2"):
        next(subject.pairs(np.zeros((2, 128, 128, 3), np.uint8)))


def test_weights_of_the_other_size_are_refused_by_name():
    with pytest.raises(UserError, match=r"not the raft-large checkpoint.*faceloom models fetch raft-large"):
        flow.load_raft("raft-large", fetched.model("raft-small"))


def test_foreground_keeps_what_exceeds_the_mean():
    magnitude = np.array([[0, 1, 2], [3, 4, 8]], np.float32)
    F, stats = flow.foreground(magnitude)
    assert F.tolist() == [[0, 0, 0], [0, 4, 8]]
    assert (stats.tau, stats.mean, stats.maximum) == (3, 6, 8)
    assert stats.p995 == pytest.approx(np.percentile([0, 0, 0, 0, 4, 8], 99.5))


def test_a_uniform_field_has_no_foreground():
    F, stats = flow.foreground(np.full((8, 8), 0.1, np.float32))
    assert not F.any()
    assert stats.mean == stats.maximum == 0


def test_pool_averages_cells_of_8_by_8():
    F = np.random.default_rng(0).random((16, 24), dtype=np.float32)
    pooled = flow.pool(F)
    assert pooled.shape == (2, 3)
    assert pooled[1, 2] == pytest.approx(F[8:16, 16:24].mean())
    with pytest.raises(ValueError, match="20×24"):
        flow.pool(np.zeros((20, 24), np.float32))


@given(st.lists(st.floats(0, 100, width=32), min_size=48, max_size=48))
def test_grouping_equals_a_slow_loop_over_the_frames_of_each_latent(values):
    frame_of_pair = dict(enumerate(values))
    frame_of_pair[48] = frame_of_pair[47]
    slow = [frame_of_pair[0]]
    for k in range(1, 13):
        frames = range(4 * k - 3, 4 * k + 1)
        slow.append(sum(frame_of_pair[f] for f in frames) / 4)
    pooled = np.array(values, np.float32).reshape(48, 1, 1)
    assert flow.group_49_to_13(pooled)[:, 0, 0] == pytest.approx(slow, rel=1e-5)


def test_clip_flow_has_the_shapes_and_types_of_a_sample():
    frames = np.random.default_rng(0).integers(0, 256, (49, 480, 720, 3), np.uint8)
    result = flow.clip_flow(frames, (0, 720), 49, FakeEstimator())
    assert (result.flow.shape, result.flow.dtype) == ((13, 60, 90), np.float16)
    assert (result.pairs.shape, result.pairs.dtype) == ((48, 4), np.float32)


def test_the_clip_scale_is_the_quantile_of_the_full_resolution_foreground():
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), np.uint8)
    result = flow.clip_flow(frames, (0, 24), 5, FakeEstimator())
    F = [flow.foreground(np.hypot(*np.moveaxis(f, -1, 0)))[0] for f in FakeEstimator().pairs(frames)]
    assert result.p995 == pytest.approx(np.percentile(np.stack(F), 99.5))


def test_bars_change_nothing_inside_the_content():
    content = moving([(i, 0) for i in range(5)], 128, 160)
    barred = np.zeros((5, 128, 320, 3), np.uint8)
    barred[:, :, 80:240] = content
    subject = estimator(iterations=2)
    plain = flow.clip_flow(content, (0, 160), 5, subject)
    padded = flow.clip_flow(barred, (80, 240), 5, subject)
    assert np.array_equal(padded.flow[:, :, 10:30], plain.flow)
    assert not padded.flow[:, :, :10].any()
    assert not padded.flow[:, :, 30:].any()
    assert np.array_equal(padded.pairs, plain.pairs)
    assert padded.p995 == plain.p995


def test_repeats_of_the_last_frame_do_not_move_and_do_not_count():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 256, (4, 16, 24, 3), np.uint8)
    padded = np.concatenate([own, np.repeat(own[-1:], 5, axis=0)])
    result = flow.clip_flow(padded, (0, 24), 4, FakeEstimator())
    assert not result.pairs[3:].any()
    assert not result.flow[2:].any()
    F = [flow.foreground(np.hypot(*np.moveaxis(f, -1, 0)))[0] for f in FakeEstimator().pairs(own)]
    assert result.p995 == pytest.approx(np.percentile(np.stack(F), 99.5))


def test_content_outside_the_frame_is_refused():
    with pytest.raises(ValueError, match=r"columns 8\.\.32"):
        flow.clip_flow(np.zeros((5, 16, 24, 3), np.uint8), (8, 32), 5, FakeEstimator())
