"""Smoothing: what it must leave alone, and what it must not move."""

import numpy as np

from landmarks.record import LandmarkRecord
from landmarks.smirk_motion import SmirkMotion
from landmarks.smoothing import smooth

T = 12
rng = np.random.default_rng(0)


def record_with(points: np.ndarray, found: np.ndarray | None = None) -> LandmarkRecord:
    frames = len(points)
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    found = np.ones(frames, bool) if found is None else found
    pose[~found] = np.nan
    shapes = np.where(found[:, None], 0.5, np.nan).astype(np.float32) * np.ones((1, 52), np.float32)
    return LandmarkRecord(points.astype(np.float32), shapes, pose, found, 640, 480)


def paths(curve: np.ndarray) -> np.ndarray:
    return np.broadcast_to(curve[:, None, None], (len(curve), 478, 3)).copy()


def test_a_movement_at_constant_acceleration_is_left_as_it_is() -> None:
    t = np.arange(T) / T
    record = record_with(paths(0.3 + 0.2 * t - 0.4 * t**2))
    np.testing.assert_allclose(smooth(record).points, record.points, atol=1e-6)


def test_a_jolt_is_spread_evenly_to_both_sides() -> None:
    curve = np.zeros(T)
    curve[6] = 1
    smoothed = smooth(record_with(paths(curve))).points[:, 0, 0]
    np.testing.assert_allclose(smoothed[4:9] * 35, [-3, 12, 17, 12, -3], atol=1e-5)


def test_noise_becomes_less() -> None:
    noisy = 0.5 + rng.normal(0, 0.01, (100, 478, 3))
    assert smooth(record_with(noisy)).points[5:-5].std() < 0.75 * noisy[5:-5].std()


def test_gaps_stay_gaps_and_nothing_reaches_across_them() -> None:
    found = np.ones(T, bool)
    found[6] = False
    curve = np.where(np.arange(T) < 6, 0.2, 0.8)
    points = paths(curve)
    points[6] = np.nan
    smoothed = smooth(record_with(points, found)).points
    np.testing.assert_allclose(smoothed[:6], 0.2, atol=1e-6)
    assert np.isnan(smoothed[6]).all()
    np.testing.assert_allclose(smoothed[7:], 0.8, atol=1e-6)


def test_a_run_too_short_for_the_window_stays_as_it_is() -> None:
    points = rng.uniform(0, 1, (4, 478, 3))
    np.testing.assert_array_equal(smooth(record_with(points)).points, points.astype(np.float32))


def test_poses_stay_rigid_and_smirk_is_smoothed_too() -> None:
    record = record_with(paths(rng.uniform(0, 1, T)))
    turn = rng.uniform(-0.5, 0.5, T)
    record.pose[:, 0, 0] = record.pose[:, 1, 1] = np.cos(turn)
    record.pose[:, 0, 1], record.pose[:, 1, 0] = -np.sin(turn), np.sin(turn)
    smirk = SmirkMotion(
        rng.normal(0, 1, (T, 61)).astype(np.float32),
        np.zeros(300, np.float32),
        rng.normal(0, 1, (T, 2, 3)).astype(np.float32),
    )
    smoothed = smooth(LandmarkRecord(record.points, record.blendshapes, record.pose, record.found, 640, 480, smirk))
    R = smoothed.pose[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (T, 3, 3)), atol=1e-6)
    assert np.abs(smoothed.pose - record.pose).max() > 0.01
    assert smoothed.smirk is not None
    assert smoothed.smirk.parameters.std() < smirk.parameters.std()
