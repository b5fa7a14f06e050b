"""Real frames of a man: what a video has in comparison with itself, and what changes to it do."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.compare import Compared, against_driver, against_truth, compare_with_truth, steadiness
from evaluation.footage import Footage, of_file
from evaluation.metrics import METRICS
from evaluation.track import FaceTrack, FaceTracker
from tests.evaluation.conftest import FPS, See, noisy
from tests.videos import write


def values(compared: Compared) -> dict[str, float | None]:
    return {name: measure.value for name, measure in compared.measures.items()}


def test_a_video_is_the_ideal_of_itself_by_every_metric(driver: Footage, seen: FaceTrack):
    found = against_driver(seen, seen, 2).measures | steadiness(driver, seen, driver, seen).measures
    found |= against_truth(driver, seen, driver, seen).measures
    assert set(found) == {metric.name for metric in METRICS.values() if metric.mode != "legacy" and not metric.needs}
    for name, measure in found.items():
        if (ideal := METRICS[name].ideal) is not None:
            assert measure.value == pytest.approx(ideal, abs=1e-6), name
            assert measure.coverage == 1, name
    assert found["truth_psnr_db"].value is None
    assert "infinite" in found["truth_psnr_db"].reason
    assert found["expression"].offset == 0


def test_what_lags_by_a_frame_is_read_a_frame_earlier_and_what_lags_more_is_worse(
    man: np.ndarray, see: See, seen: FaceTrack
):
    late = [values(against_driver(see(man[shift:])[1], seen, 2)) for shift in (0, 1, 3, 6)]
    assert late[1]["expression"] < 0.005
    for name in ("expression", "pose_deg"):
        assert late[1][name] < late[2][name] < late[3][name], name
    assert late[0]["lip_gap_correlation"] > late[2]["lip_gap_correlation"]


def test_noise_moves_what_is_seen_and_its_flicker(man: np.ndarray, see: See, driver: Footage, seen: FaceTrack):
    made = []
    for sigma in (0, 4, 16):
        footage, face = see(noisy(man, sigma))
        made.append(values(against_driver(face, seen, 2)) | values(steadiness(footage, face, driver, seen)))
    for name in ("expression", "flicker", "flicker_excess"):
        assert made[0][name] < made[1][name] < made[2][name], name


def test_a_still_picture_is_far_from_the_driver_and_does_not_flicker(
    man: np.ndarray, see: See, driver: Footage, seen: FaceTrack
):
    footage, face = see(np.repeat(man[:1], len(man), axis=0))
    still = values(against_driver(face, seen, 2)) | values(steadiness(footage, face, driver, seen))
    assert still["expression"] > 0.02
    assert still["relative_pose_deg"] > 2
    assert abs(still["lip_gap_correlation"]) < 0.3
    assert still["flicker"] == pytest.approx(0, abs=1e-6)
    assert still["flicker_excess"] < 0


def test_a_mirror_image_turns_the_other_way_and_opens_its_lips_alike(man: np.ndarray, see: See, seen: FaceTrack):
    mirrored = values(against_driver(see(man[:, :, ::-1])[1], seen, 2))
    assert mirrored["roll_deg"] > 10
    assert mirrored["relative_yaw_deg"] > 2
    assert mirrored["relative_pitch_deg"] < 2
    assert mirrored["lip_gap_correlation"] > 0.95


def test_a_video_without_a_face_has_no_number_but_a_reason(man: np.ndarray, see: See, driver: Footage, seen: FaceTrack):
    footage, face = see(np.zeros_like(man))
    found = against_driver(face, seen, 2).measures | steadiness(footage, face, driver, seen).measures
    for name, measure in found.items():
        assert measure.value is None, name
        assert measure.coverage == 0, name
        assert measure.reason, name


def test_frames_without_a_face_are_counted(man: np.ndarray, see: See, seen: FaceTrack):
    half = man.copy()
    half[12:] = 0
    measure = against_driver(see(half)[1], seen, 2).measures["expression"]
    assert measure.frames == 12
    assert measure.coverage == 0.5
    assert measure.value < 0.005


def test_a_driver_of_another_rate_is_read_by_presentation_time(tmp_path: Path, man: np.ndarray, faces: FaceTracker):
    slow = of_file(write(tmp_path / "slow.mp4", list(man[::2]), rate=int(FPS / 2)))
    fast = of_file(write(tmp_path / "fast.mp4", list(man), rate=int(FPS)), slow.fps)
    assert slow.fps == pytest.approx(FPS / 2)
    assert len(slow) == len(fast) == 12
    measure = against_driver(faces.track(slow), faces.track(fast), 2).measures["expression"]
    assert (measure.offset, measure.frames) == (0, 12)
    assert measure.value < 0.01


def test_several_results_can_be_compared_with_one_truth(tmp_path: Path, man: np.ndarray, faces: FaceTracker):
    truth = write(tmp_path / "truth.mp4", list(man[:10]), rate=int(FPS))
    good, bad = noisy(man[:10], 3), np.repeat(man[:1], 10, axis=0)
    near, far = compare_with_truth({"good": good, "bad": bad}, truth, faces, FPS).values()
    assert set(near) == {metric.name for metric in METRICS.values() if metric.mode == "truth"}
    assert near["truth_mae"].value < far["truth_mae"].value
    assert near["truth_ssim"].value > far["truth_ssim"].value
    assert near["truth_lip_gap_correlation"].value > 0.7


def test_a_truth_of_another_size_is_fitted_and_one_of_another_shape_is_not(man: np.ndarray, see: See, seen: FaceTrack):
    footage, face = see(man[:, ::2, ::2])
    fitted = against_truth(footage, face, *see(man)).measures["truth_mae"]
    assert 0 < fitted.value < 10
    square, other = see(man[:, :, :144])
    refused = against_truth(square, other, *see(man)).measures["truth_mae"]
    assert refused.value is None
    assert "another shape" in refused.reason
