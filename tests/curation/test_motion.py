import itertools
import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from curation.config import CurationConfig
from curation.expressions import evaluate
from curation.motion import MOTION_RATIO, MotionConfig, inside_noise, motion_score, motion_statistics
from curation.statistics import NOISE_MARGIN, STATISTICS

T = 49
WAVE = np.sin(np.linspace(0, 2 * np.pi, T))
# What p95 - p5 and p95 make of the wave, by sorting.
WAVE_RANGE = float(np.interp([0.05 * (T - 1), 0.95 * (T - 1)], np.arange(T), np.sort(WAVE)) @ [-1, 1])
WAVE_P95 = float(np.interp(0.95 * (T - 1), np.arange(T), np.sort(np.abs(WAVE))))


def statistics_of(
    yaw: np.ndarray | float = 0.0,
    pitch: np.ndarray | float = 0.0,
    roll: np.ndarray | float = 0.0,
    lips_px: np.ndarray | float = 0.0,
    gap_cm: np.ndarray | float = 0.0,
    shapes: np.ndarray | None = None,
    missing: list[int] | None = None,
) -> dict[str, float]:
    angles = np.stack(np.broadcast_arrays(yaw, pitch, roll, np.zeros(T))[:3], axis=1)
    pose = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    pose[:, :3, :3] = Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    points = np.zeros((T, 478, 3), np.float32)
    points[:, 78, 0], points[:, 308, 0] = 0.45, 0.55  # 100 px apart in a frame of 1000 x 500
    for lower in (87, 14, 317):
        points[:, lower, 1] = np.broadcast_to(lips_px, T) / 500
    for pair, x in (((82, 87), 0.48), ((13, 14), 0.5), ((312, 317), 0.52)):
        points[:, pair, 0] = x
    metric = np.zeros((T, 478, 3), np.float32)
    metric[:, 14, 1] = gap_cm
    shapes = np.zeros((T, 52), np.float32) if shapes is None else shapes.astype(np.float32)
    for frame in missing or []:
        points[frame], metric[frame], shapes[frame], pose[frame] = np.nan, np.nan, np.nan, np.nan
    return motion_statistics(points, metric, shapes, pose, 1000, 500, 12.0)


def test_a_still_face_does_not_move() -> None:
    statistics = statistics_of(yaw=10, pitch=-7, roll=3, lips_px=20, gap_cm=1.0)
    moving = {name: value for name, value in statistics.items() if "range" in name or "score" in name}
    assert all(abs(value) < 1e-3 for value in moving.values())
    assert statistics["expression_activity"] == 0
    assert statistics["speed_p95_deg_s"] < 1e-3
    assert statistics["yaw_p95_deg"] == pytest.approx(10, abs=1e-3)
    assert statistics["pitch_median_deg"] == pytest.approx(-7, abs=1e-3)
    assert statistics["pitch_p95_deg"] == pytest.approx(0, abs=1e-3)
    assert statistics["roll_p95_deg"] == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize("axis", ["yaw", "pitch", "roll"])
def test_each_axis_is_measured_on_its_own(axis: str) -> None:
    statistics = statistics_of(**{axis: 20 * WAVE})
    for other in ("yaw", "pitch", "roll"):
        expected = 20 * WAVE_RANGE if other == axis else 0
        assert statistics[f"{other}_range_deg"] == pytest.approx(expected, abs=1e-3)
        assert statistics[f"{other}_p95_deg"] == pytest.approx(20 * WAVE_P95 if other == axis else 0, abs=1e-3)
    assert statistics["head_range_deg"] == pytest.approx(20 * WAVE_RANGE, abs=1e-3)
    assert statistics["head_geodesic_range_deg"] == pytest.approx(2 * 20 * WAVE_P95, abs=0.1)


def test_pitch_is_read_from_its_median() -> None:
    statistics = statistics_of(pitch=25 + 10 * WAVE)
    assert statistics["pitch_median_deg"] == pytest.approx(25, abs=1e-3)
    assert statistics["pitch_p95_deg"] == pytest.approx(10 * WAVE_P95, abs=1e-3)


@pytest.mark.parametrize(("turned", "over"), [(2, False), (4, True)])
def test_a_head_beyond_any_limit_in_more_than_5_percent_of_the_frames_is_beyond_the_pose(
    turned: int, over: bool
) -> None:
    """Of 49 frames as many are turned too far in yaw as in roll; neither alone is beyond its own limit."""
    yaw, roll = np.zeros(T), np.zeros(T)
    yaw[: turned // 2], roll[-(turned // 2) :] = -46.0, 31.0
    statistics = statistics_of(yaw=yaw, roll=roll)
    assert statistics["yaw_p95_deg"] < 45
    assert statistics["roll_p95_deg"] < 30
    assert (statistics["pose_p95"] > 1) is over


def test_the_pose_is_the_frame_s_largest_angle_over_its_limit_with_pitch_from_its_median() -> None:
    assert statistics_of(yaw=30, pitch=-20, roll=0)["pose_p95"] == pytest.approx(30 / 45, abs=1e-4)
    assert statistics_of(yaw=0, pitch=-20, roll=-12)["pose_p95"] == pytest.approx(12 / 30, abs=1e-4)
    assert statistics_of(pitch=25 + 10 * WAVE)["pose_p95"] == pytest.approx(10 * WAVE_P95 / 30, abs=1e-4)


def test_the_mouth_is_measured_three_ways() -> None:
    shapes = np.zeros((T, 52))
    shapes[:, 25] = 0.5 + 0.4 * WAVE  # jawOpen
    statistics = statistics_of(lips_px=30 + 20 * WAVE, gap_cm=1 + 0.5 * WAVE, shapes=shapes)
    assert statistics["mouth_aspect_range"] == pytest.approx(0.2 * WAVE_RANGE, abs=1e-3)
    assert statistics["lip_gap_range_cm"] == pytest.approx(0.5 * WAVE_RANGE, abs=1e-4)
    assert statistics["jaw_open_range"] == pytest.approx(0.4 * WAVE_RANGE, abs=1e-4)
    assert statistics["expression_activity"] == pytest.approx(0.4 * WAVE.std() / 51, abs=1e-5)


def test_the_neutral_shape_is_no_expression() -> None:
    shapes = np.zeros((T, 52))
    shapes[:, 0] = WAVE
    assert statistics_of(shapes=shapes)["expression_activity"] == 0


def test_speed_is_in_degrees_a_second_at_the_rate_given() -> None:
    turning = statistics_of(yaw=np.linspace(-24, 24, T))  # 1 degree a frame at 12 fps
    assert turning["speed_p95_deg_s"] == pytest.approx(12, abs=1e-2)


def test_one_bad_frame_is_no_movement() -> None:
    yaw, lips = np.zeros(T), np.full(T, 10.0)
    yaw[20], lips[20] = 40, 90
    statistics = statistics_of(yaw=yaw, lips_px=lips)
    assert statistics["head_range_deg"] == pytest.approx(0, abs=1e-3)
    assert statistics["mouth_aspect_range"] == pytest.approx(0, abs=1e-3)


def test_frames_without_a_face_are_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = statistics_of(yaw=15 * WAVE, lips_px=30 + 9 * WAVE)
        holes = statistics_of(yaw=15 * WAVE, lips_px=30 + 9 * WAVE, missing=[5, 6, 30])
    for name, value in whole.items():
        assert np.isfinite(holes[name])
        assert holes[name] == pytest.approx(value, rel=0.1, abs=0.1)


def test_every_statistic_is_declared_for_the_window() -> None:
    names = set(statistics_of())
    assert all(STATISTICS[name].stage == "window" for name in names)


QUIET = {
    "head_range_deg": 0.0,
    "mouth_aspect_range": 0.0,
    "lip_gap_range_cm": 0.0,
    "jaw_open_range": 0.0,
    "expression_activity": 0.0,
}
LIMITS = {
    "head_range_deg": 8.0,
    "mouth_aspect_range": 0.18,
    "lip_gap_range_cm": 0.8,
    "jaw_open_range": 0.31,
    "expression_activity": 0.045,
}


def motion_ratio(statistics: dict[str, float], motion: MotionConfig) -> float:
    return float(evaluate(MOTION_RATIO, statistics, CurationConfig(motion=motion)))


@pytest.mark.parametrize("name", LIMITS)
def test_any_movement_is_enough_in_mode_any(name: str) -> None:
    config = MotionConfig(mode="any")
    assert motion_ratio(QUIET, config) == 0
    assert motion_ratio({**QUIET, name: LIMITS[name]}, config) == pytest.approx(1)
    assert motion_ratio({**QUIET, name: 0.99 * LIMITS[name]}, config) < 1


def test_mode_all_wants_the_head_and_the_mouth_or_expression() -> None:
    config = MotionConfig(mode="all")
    for moving in itertools.chain.from_iterable(itertools.combinations(LIMITS, n) for n in range(6)):
        statistics = {**QUIET, **{name: LIMITS[name] for name in moving}}
        passes = "head_range_deg" in moving and len(moving) > 1
        assert (motion_ratio(statistics, config) >= 1) is passes, moving


def test_the_score_adds_head_mouth_and_expression_each_up_to_one() -> None:
    assert motion_score(QUIET) == 0
    assert motion_score({**QUIET, "head_range_deg": 12.5}) == pytest.approx(0.5)
    assert motion_score({**QUIET, "mouth_aspect_range": 0.3}) == pytest.approx(0.5)
    assert motion_score({**QUIET, "expression_activity": 0.05}) == pytest.approx(0.5)
    assert motion_score(dict.fromkeys(QUIET, 100.0)) == 3


@pytest.mark.parametrize(
    "key",
    [
        "min_head_range_deg",
        "min_mouth_aspect_range",
        "min_lip_gap_range_cm",
        "min_jaw_open_range",
        "min_expression_activity",
    ],
)
def test_a_limit_of_zero_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        MotionConfig.model_validate({key: 0})


def test_the_default_lower_limits_lie_three_times_above_the_noise() -> None:
    for name in LIMITS:
        noise = STATISTICS[name].noise
        assert noise is not None
        assert getattr(MotionConfig(), f"min_{name}") >= NOISE_MARGIN * noise, name


def test_a_lower_limit_inside_the_noise_is_warned_of() -> None:
    assert inside_noise(MotionConfig()) == []
    (note,) = inside_noise(MotionConfig(min_jaw_open_range=0.01, max_yaw_deg=0.1))
    assert note.startswith(
        "motion.min_jaw_open_range is 0.01, and noise alone moves jaw_open_range of a still face by 0."
    )
