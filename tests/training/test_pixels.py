import cv2
import numpy as np
import pytest

from tests.training.pictures import moving_picture
from training.latents import bfloat16_values
from training.pixels import PixelsCodec


def shrunk(frames: np.ndarray, factor: int) -> np.ndarray:
    """The frames area-downsampled, float32."""
    size = (frames.shape[2] // factor, frames.shape[1] // factor)
    return np.stack([cv2.resize(f.astype(np.float32), size, interpolation=cv2.INTER_AREA) for f in frames])


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def latents_of(frames: np.ndarray) -> np.ndarray:
    return bfloat16_values(PixelsCodec().encode_video(frames))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return moving_picture(49, 480, 720)


def test_a_samples_latents_have_the_stored_shape(clip):
    codec = PixelsCodec()
    video = codec.encode_video(clip)
    assert (video.dtype, video.shape) == (np.uint16, (codec.moment_channels, 13, 60, 90))
    assert codec.encode_reference(clip[7]).shape == (codec.moment_channels, 1, 60, 90)


def test_drawn_landmarks_are_counted_from_black_and_enlarged(clip):
    codec = PixelsCodec()
    drawn = np.zeros_like(clip)
    assert not codec.encode_landmarks(drawn).any()
    drawn[:, 200:204, 100:300] = clip[:, 200:204, 100:300]
    latents = bfloat16_values(codec.encode_landmarks(drawn))
    black = latents_of(np.zeros_like(clip))
    np.testing.assert_allclose(latents, 16 * (latents_of(drawn) - black), rtol=2**-7, atol=16 * 2 * 2**-8)
    # Shown again, they are what the codec shows of any video.
    difference = codec.decode_landmarks(latents).astype(int) - codec.decode(latents_of(drawn))
    assert np.abs(difference).max() <= 3


def test_a_decoded_clip_is_a_good_thumbnail_in_every_frame(clip):
    decoded = PixelsCodec().decode(latents_of(clip))
    assert (decoded.dtype, decoded.shape) == (np.uint8, clip.shape)
    pairs = zip(shrunk(decoded, 8), shrunk(clip, 8), strict=True)
    assert min(psnr_db(after, before) for after, before in pairs) > 45


def test_light_is_finer_than_a_cell():
    quarters = np.random.default_rng(0).integers(64, 192, (1, 32, 48, 1), dtype=np.uint8)
    grey = np.tile(quarters, (5, 1, 1, 3))
    grey = cv2.blur(grey.transpose(1, 2, 0, 3).reshape(32, 48, 15), (3, 3)).reshape(32, 48, 5, 3).transpose(2, 0, 1, 3)
    frames = grey.repeat(4, axis=1).repeat(4, axis=2)
    latents = latents_of(frames)
    flat = latents.copy()
    flat[12:] = 0
    codec = PixelsCodec()
    gain = psnr_db(shrunk(codec.decode(latents), 4), grey) - psnr_db(shrunk(codec.decode(flat), 4), grey)
    assert gain > 3


def test_channels_are_what_the_layout_says():
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    frames[0] = 128
    frames[1:] = np.array([[192, 128, 64]], np.uint8)
    frames[3:, :, :4] = 192
    first, second = latents_of(frames)[:, :, 0, 0].T
    assert not first.any()
    # Frames 1 and 2 are R 0.5, G 0, B −0.5; of frames 3 and 4 the left half is 0.5 in all three.
    assert second.tolist() == [0, 0, 0.5, 0.5, 4, 4, 2, 2, 0, 0, 0, 0, 0, 2, 0, 0]


def test_detail_downwards_has_its_channels():
    frames = np.full((1, 8, 8, 3), 128, np.uint8)
    frames[:, :4] = 192
    assert latents_of(frames)[:, 0, 0, 0].tolist() == [0.5] * 4 + [0] * 8 + [0, 0, 2, 2]


def test_latent_k_holds_the_four_frames_up_to_4k():
    frames = np.zeros((9, 8, 8, 3), np.uint8)
    frames[5:] = 255
    before = latents_of(np.zeros((9, 8, 8, 3), np.uint8))
    changed = (latents_of(frames) != before).any(axis=(0, 2, 3))
    assert changed.tolist() == [False, False, True]


def test_the_map_is_linear():
    rng = np.random.default_rng(0)
    low, high = (rng.integers(0, 8, (5, 16, 24, 3)).astype(np.uint8) * 16 for _ in range(2))
    grey = latents_of(np.full((5, 16, 24, 3), 128, np.uint8))
    assert not grey.any()
    together = latents_of(low + high)
    # 128 is zero, so that the sum of two pictures is a + b − 128; latents carry 8 significant bits.
    apart = latents_of(low) + latents_of(high) - latents_of(np.zeros_like(low))
    np.testing.assert_allclose(together, apart, atol=3 * 2.0**-8 * 4)


def test_frames_and_cells_do_not_mix():
    frames = moving_picture(9, 64, 96)
    latents = latents_of(frames)
    assert np.array_equal(latents_of(frames[:5]), latents[:, :2])
    assert np.array_equal(latents_of(frames[:, 16:40, 8:64]), latents[:, :, 2:5, 1:8])


def test_decoding_stays_within_the_range_of_a_picture():
    wild = np.random.default_rng(0).normal(0, 20, (16, 2, 4, 6)).astype(np.float32)
    decoded = PixelsCodec().decode(wild)
    assert decoded.shape == (5, 32, 48, 3)
    assert decoded.min() == 0
    assert decoded.max() == 255
