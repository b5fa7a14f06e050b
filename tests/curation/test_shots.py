import cv2
import numpy as np
import pytest

from curation.shots import CutFinder, ShotConfig


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
