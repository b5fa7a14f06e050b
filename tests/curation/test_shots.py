import cv2
import numpy as np
import pytest

from curation.quality import thumbnail
from curation.shots import CutFinder, DissolveFinder, ShotConfig


def cuts(frames: np.ndarray) -> list[int]:
    finder = CutFinder(12.0, ShotConfig())
    for frame in frames:
        finder.add(frame)
    return finder.cuts()


@pytest.fixture(scope="module")
def traffic(street: np.ndarray) -> np.ndarray:
    """One shot of the street, in the size of the man's footage."""
    return np.stack([cv2.resize(frame, (176, 144)) for frame in street[0:30:2]])


def test_one_shot_has_no_cut(man: np.ndarray, traffic: np.ndarray) -> None:
    assert cuts(man[::2]) == []
    assert cuts(traffic) == []


@pytest.mark.parametrize("before", [1, 2, 3, 4, 7, 12])
def test_a_cut_is_where_the_other_clip_begins_also_near_the_ends(
    before: int, man: np.ndarray, traffic: np.ndarray
) -> None:
    assert cuts(np.concatenate([man[:before], traffic[:12]])) == [before]
    assert cuts(np.concatenate([traffic[:12], man[:before]])) == [12]


def test_the_cut_that_an_editor_made_is_found(street: np.ndarray) -> None:
    assert cuts(street[:45]) == [30]


def test_a_cut_to_the_same_man_mirrored_is_found(man: np.ndarray) -> None:
    assert cuts(np.concatenate([man[:40:2], man[40:80:2, :, ::-1]])) == [20]


def test_short_shots_are_shots(man: np.ndarray, traffic: np.ndarray) -> None:
    assert cuts(np.concatenate([man[:12], traffic[:3], man[12:24]])) == [12, 15]


@pytest.mark.parametrize("inserted", [1, 2])
def test_a_flash_of_another_shot_leaves_at_least_one_cut(inserted: int, man: np.ndarray, traffic: np.ndarray) -> None:
    found = cuts(np.concatenate([man[:12], traffic[:inserted], man[12:24]]))
    assert found
    assert all(12 <= cut <= 14 for cut in found)


def test_a_still_and_repeated_frames_have_no_cut(man: np.ndarray) -> None:
    assert cuts(np.repeat(man[:1], 20, axis=0)) == []
    assert cuts(np.repeat(man[:20], 2, axis=0)) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_shortest_clips_have_no_cut(count: int, man: np.ndarray) -> None:
    assert cuts(man[:count]) == []


def test_a_cut_is_found_at_any_size(man: np.ndarray, traffic: np.ndarray) -> None:
    both = np.concatenate([man[:8], traffic[:8]])
    for width, height in ((2, 300), (61, 33), (1920, 1080)):
        assert cuts(np.stack([cv2.resize(frame, (width, height)) for frame in both])) == [8]


# Dissolves.


def mixed(frames: np.ndarray) -> list[int]:
    finder = DissolveFinder(ShotConfig())
    for frame in frames:
        finder.add(cv2.cvtColor(thumbnail(frame), cv2.COLOR_RGB2GRAY).astype(np.float32))
    return np.flatnonzero(finder.frames()).tolist()


def dissolve(before: np.ndarray, after: np.ndarray, length: int) -> np.ndarray:
    """``before`` fades into ``after`` over ``length`` frames, of which none is pure."""
    weight = (np.arange(1, length + 1) / (length + 1))[:, None, None, None]
    blend = (1 - weight) * before[-length:] + weight * after[:length]
    return np.concatenate([before[:-length], np.rint(blend).astype(np.uint8), after[length:]])


def test_one_shot_has_no_dissolve(man: np.ndarray, traffic: np.ndarray, street: np.ndarray) -> None:
    for shot in (man, man[::2], man[::3], traffic, street[36:240:2]):
        assert mixed(shot) == []


@pytest.mark.parametrize("length", [4, 6, 12, 24])
def test_a_dissolve_is_found_where_it_is(length: int, man: np.ndarray, street: np.ndarray) -> None:
    cars = np.stack([cv2.resize(frame, (176, 144)) for frame in street[:30]])
    found = mixed(dissolve(man[:80:2], cars, length))
    first, last = 40 - length, 39
    assert found
    inner = set(range(first + length // 4, last + 1 - length // 4))
    assert inner <= set(found)
    assert min(found) >= first - 2
    assert max(found) <= last + 2


def test_a_dissolve_of_the_man_into_his_later_self_is_found(man: np.ndarray) -> None:
    assert mixed(dissolve(man[:60:2], man[60:, :, ::-1][::2], 8))


def test_a_fade_to_black_is_a_dissolve(man: np.ndarray) -> None:
    assert mixed(dissolve(man[:60:2], np.zeros_like(man[:30]), 8))


def test_an_exposure_that_adapts_is_no_dissolve(man: np.ndarray) -> None:
    lit = [np.clip(frame.astype(int) // 2 + 3 * i, 0, 255).astype(np.uint8) for i, frame in enumerate(man[:60:2])]
    assert mixed(np.stack(lit)) == []


def test_a_hard_cut_is_no_dissolve(man: np.ndarray, traffic: np.ndarray) -> None:
    assert mixed(np.concatenate([man[:30:2], traffic])) == []


@pytest.mark.parametrize("step", [0.01, 0.03])
def test_a_camera_that_pans_or_zooms_makes_no_dissolve(step: float, street: np.ndarray) -> None:
    height, width = street.shape[1:3]
    for i in range(2):
        shots = []
        for t in range(20):
            zoom = 1 + (i * t * step)
            move = np.array([[zoom, 0, -(1 - i) * t * step * width], [0, zoom, 0]])
            shots.append(cv2.warpAffine(street[0], move, (width, height), borderMode=cv2.BORDER_REFLECT))
        assert mixed(np.stack(shots)) == []


@pytest.mark.parametrize("count", [0, 1, 6])
def test_what_is_shorter_than_a_comparison_has_no_dissolve(count: int, man: np.ndarray) -> None:
    assert mixed(man[:count]) == []
