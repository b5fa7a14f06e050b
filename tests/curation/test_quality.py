import itertools

import cv2
import numpy as np
import pytest

from curation.quality import QualityConfig, face_sharpness, picture_change, thumbnail
from landmarks.landmarker import Box

CONFIG = QualityConfig()
FACE = Box(52, 30, 112, 104)  # the man's


def grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(thumbnail(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)


def test_a_picture_that_repeats_does_not_change_and_one_in_which_somebody_moves_does(man: np.ndarray) -> None:
    assert picture_change(grey(man[0]), grey(man[0])) == 0
    assert all(picture_change(grey(a), grey(b)) > CONFIG.still_change for a, b in itertools.pairwise(man))


def test_an_eye_that_closes_in_a_large_still_picture_is_a_change() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    blink = frame.copy()
    blink[400:420, 800:850] = 255
    assert np.abs(grey(blink) - grey(frame)).mean() < CONFIG.still_change
    assert picture_change(grey(frame), grey(blink)) > CONFIG.still_change


def test_faint_noise_in_a_still_is_no_change(man: np.ndarray) -> None:
    still = cv2.resize(man[0], (1280, 1048))
    rng = np.random.default_rng(1)
    noisy = [np.clip(still + rng.normal(0, 1, still.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    assert picture_change(grey(noisy[0]), grey(noisy[1])) < CONFIG.still_change


def test_thumbnails_keep_their_shape_and_small_frames_their_pixels(man: np.ndarray) -> None:
    assert thumbnail(np.zeros((1080, 1920, 3), np.uint8)).shape == (144, 256, 3)
    np.testing.assert_array_equal(thumbnail(man[0]), man[0])


def test_sharpness_falls_with_blur_and_is_below_the_limit_when_features_are_gone(man: np.ndarray) -> None:
    blurred = [man[0], *(cv2.GaussianBlur(man[0], (0, 0), sigma) for sigma in (0.5, 1, 2, 4))]
    values = [face_sharpness(frame, FACE) for frame in blurred]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * CONFIG.min_sharpness
    assert values[-2] < CONFIG.min_sharpness


@pytest.mark.parametrize("scale", [3, 6])
def test_the_same_face_is_as_sharp_in_a_larger_picture(scale: int, man: np.ndarray) -> None:
    """Of a picture with detail at 112 px; how large it was photographed does not matter."""
    rng = np.random.default_rng(2)
    base = cv2.GaussianBlur(rng.integers(0, 256, (180, 240, 3), np.uint8), (0, 0), 1.5)
    large = cv2.resize(base, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)
    box = Box(60, 40, 172, 152)
    bigger = Box(*(scale * np.array([box.x0, box.y0, box.x1, box.y1])))
    assert face_sharpness(large, bigger) == pytest.approx(face_sharpness(base, box), rel=0.1)


def test_a_face_at_the_frames_edge_has_a_sharpness(man: np.ndarray) -> None:
    assert face_sharpness(man[0], Box(-30, -20, 40, 60)) > 0
    assert face_sharpness(man[0], Box(200, 200, 260, 260)) == 0  # one px of the frame is left
