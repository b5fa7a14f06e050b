from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from landmarks.record import LandmarkRecord, dequantise, from_region, interpolate_missing, quantise, to_crop

in_range = hnp.arrays(np.float32, (20, 3), elements=st.floats(-0.5, 1.5, width=32))


@given(in_range)
def test_storing_costs_less_than_a_fiftieth_of_a_pixel(points):
    error_px = np.abs(dequantise(quantise(points)).astype(float) - points) * 720
    assert error_px.max() <= 0.012


@given(hnp.arrays(np.uint16, 50))
def test_stored_codes_survive_a_round_trip(codes):
    np.testing.assert_array_equal(quantise(dequantise(codes)), codes)


def test_the_code_is_the_documented_one():
    np.testing.assert_array_equal(quantise(np.array([-0.5, 0.0, 0.5, 1.0, 1.5])), [0, 16384, 32768, 49151, 65535])


def test_points_beyond_the_range_are_clipped():
    np.testing.assert_array_equal(quantise(np.array([-3.0, 4.0])), [0, 65535])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_missing_point_cannot_be_stored(bad):
    with pytest.raises(ValueError, match="finite"):
        quantise(np.array([0.5, bad]))


def turning_head(found: str) -> LandmarkRecord:
    """Everything moves linearly, 5° of yaw a frame; ``found`` is a string of 1s and 0s."""
    mask = np.array([c == "1" for c in found])
    frames = len(mask)
    ramp = np.linspace(0, 1, frames, dtype=np.float32)
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    pose[:, :3, :3] = Rotation.from_euler("Y", 5 * np.arange(frames)[:, None], degrees=True).as_matrix()
    pose[:, 2, 3] = -50 - ramp
    points = np.broadcast_to(ramp[:, None, None], (frames, 478, 3)).copy()
    blendshapes = np.broadcast_to(ramp[:, None], (frames, 52)).copy()
    for array in (points, blendshapes, pose):
        array[~mask] = np.nan
    return LandmarkRecord(points, blendshapes, pose, mask, width=640, height=480)


def test_short_gaps_are_bridged_linearly_and_still_count_as_not_found():
    record = turning_head("1101100011")
    filled = interpolate_missing(record)
    truth = turning_head("1" * 10)
    np.testing.assert_allclose(filled.points, truth.points, atol=1e-6)
    np.testing.assert_allclose(filled.blendshapes, truth.blendshapes, atol=1e-6)
    np.testing.assert_allclose(filled.pose, truth.pose, atol=2e-3)
    np.testing.assert_array_equal(filled.found, record.found)


def test_bridged_poses_stay_rigid():
    R = interpolate_missing(turning_head("10001")).pose[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-6)


def test_at_the_ends_the_nearest_frame_is_held():
    filled = interpolate_missing(turning_head("0011100"))
    for array in (filled.points, filled.blendshapes, filled.pose):
        np.testing.assert_allclose(array[:2], array[[2, 2]], atol=1e-7)
        np.testing.assert_allclose(array[5:], array[[4, 4]], atol=1e-7)


@pytest.mark.parametrize("found", ["1100001", "0000111", "1110000", "0000000"])
def test_long_gaps_stay_nan(found):
    record = turning_head(found)
    filled = interpolate_missing(record, max_gap=3)
    for before, after in zip(
        (record.points, record.blendshapes, record.pose), (filled.points, filled.blendshapes, filled.pose), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@given(st.text("01", min_size=1, max_size=20), st.integers(0, 5))
def test_exactly_the_gaps_within_the_limit_are_filled(found, max_gap):
    record = turning_head(found)
    gaps = found.split("1")
    expected = found if len(gaps) == 1 else "1".join(("1" if len(gap) <= max_gap else "0") * len(gap) for gap in gaps)
    filled = np.isfinite(interpolate_missing(record, max_gap).points).all(axis=(1, 2))
    assert "".join("01"[int(f)] for f in filled) == expected


def test_a_record_refuses_wrong_shapes_dtypes_and_holes():
    record = turning_head("111")
    with pytest.raises(ValueError, match="blendshapes must be float32"):
        replace(record, blendshapes=record.blendshapes[:, 1:])
    with pytest.raises(ValueError, match="pose must be float32"):
        replace(record, pose=record.pose.astype(np.float64))
    with pytest.raises(ValueError, match="points is not finite"):
        replace(record, points=np.full_like(record.points, np.nan))


def test_a_region_is_placed_in_its_frame():
    points = np.zeros((2, 478, 3))
    points[:] = [0.25, 0.5, 0.1]
    region = [[100, 50, 200, 300], [-40, 0, 200, 300]]  # moves between the frames, and out of the frame
    mapped = from_region(points, region, 640, 480)
    np.testing.assert_allclose(mapped[0, 0], [150 / 640, 200 / 480, 20 / 640], rtol=1e-6)
    np.testing.assert_allclose(mapped[1, 0], [10 / 640, 150 / 480, 20 / 640], rtol=1e-6)
    np.testing.assert_array_equal(from_region(points[0], region[0], 640, 480), mapped[0])


@pytest.mark.parametrize("crop_xywh", [(60, 20, 360, 240), (150, 100, 180, 120), (-120, 0, 600, 400)])
def test_crop_coordinates_follow_the_pixels_of_a_real_crop(crop_xywh):
    width, height, (x, y, w, h) = 480, 400, crop_xywh
    where = np.array([231.3, 158.8])  # px of the source
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    blob = np.exp(-((columns - where[0]) ** 2 + (rows[:, None] - where[1]) ** 2) / (2 * 6**2))
    padded = np.pad(blob, ((0, 0), (200, 200)))
    cropped = cv2.resize(padded[y : y + h, 200 + x : 200 + x + w], (720, 480), interpolation=cv2.INTER_LINEAR)
    weight = cropped / cropped.sum()
    centroid = [(weight * (np.arange(720) + 0.5)).sum(), (weight * (np.arange(480)[:, None] + 0.5)).sum()]

    point = np.append(where / [width, height], 0)[None]
    np.testing.assert_allclose(to_crop(point, (width, height), crop_xywh, (720, 480))[0], centroid, atol=0.02)
