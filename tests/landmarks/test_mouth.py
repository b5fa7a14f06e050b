import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from landmarks.mouth import JAW_OPEN, expression_activity, jaw_open, lip_gap_cm, mouth_aspect_ratio
from tests.landmarks.conftest import Detections


def mouth_px(width_px: float, openings_px: tuple[float, float, float]) -> np.ndarray:
    """``[478, 3]`` px: a mouth of that width, opened by that much at its left, middle and right."""
    points = np.zeros((478, 3))
    points[78], points[308] = [-width_px / 2, 0, 0], [width_px / 2, 0, 0]
    for (upper, lower), opening in zip([(82, 87), (13, 14), (312, 317)], openings_px, strict=True):
        points[upper], points[lower] = [0, -opening / 2, 0], [0, opening / 2, 0]
    return points


def test_aspect_ratio_is_mean_opening_over_width_in_any_orientation_and_frame_shape():
    rotated = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).apply(mouth_px(50, (8, 12, 10)))
    points = np.stack([mouth_px(50, (8, 12, 10)), rotated + np.array([300, 200, 5])]) / [1280, 720, 1280]
    np.testing.assert_allclose(mouth_aspect_ratio(points, 1280, 720), 10 / 50)


def test_lip_gap_is_the_distance_of_the_middle_inner_lips():
    metric = np.zeros((2, 478, 3), dtype=np.float32)
    metric[1, 13], metric[1, 14] = [0, 1, 5], [0, -1, 6]
    np.testing.assert_allclose(lip_gap_cm(metric), [0, math.sqrt(5)])


def test_jaw_open_is_the_blendshape_mediapipe_calls_so(detected: Detections):
    assert detected.blendshape_names[JAW_OPEN] == "jawOpen"
    np.testing.assert_array_equal(jaw_open(detected.blendshapes), detected.blendshapes[:, JAW_OPEN].astype(float))


def test_the_talking_man_moves_his_mouth(detected: Detections):
    ratio = mouth_aspect_ratio(detected.points, 176, 144)
    assert np.ptp(np.percentile(ratio, [5, 95])) > 0.18
    assert np.corrcoef(ratio, jaw_open(detected.blendshapes))[0, 1] > 0.6


def test_activity_is_the_mean_deviation_without_the_neutral_blendshape():
    blendshapes = np.zeros((10, 52), dtype=np.float32)
    blendshapes[::2, 7] = 1  # deviates by 0.5
    blendshapes[::2, 0] = 1  # _neutral
    assert expression_activity(blendshapes) == pytest.approx(0.5 / 51)


def test_a_still_face_has_no_activity_and_a_missing_one_has_none_to_give():
    blendshapes = np.full((4, 52), 0.3, dtype=np.float32)
    assert expression_activity(blendshapes) == pytest.approx(0, abs=1e-6)
    blendshapes[1] = np.nan
    assert expression_activity(blendshapes) == pytest.approx(0, abs=1e-6)
    assert math.isnan(expression_activity(np.full((4, 52), np.nan)))
