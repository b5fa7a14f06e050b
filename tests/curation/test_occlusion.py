from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.faces import FaceFinder
from curation.occlusion import OcclusionConfig, occluded, skin_colours, skin_points
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import Face

CONFIG = OcclusionConfig()
HAND = (198, 150, 125)


@pytest.fixture(scope="module")
def canonical(task_file: Path) -> CanonicalFace:
    return read_geometry(task_file)


def made(frames: int, covered: list[int], share: float = 0.5, change: float = 45.0) -> tuple[np.ndarray, np.ndarray]:
    """Colours of skin ``[frames, 150, 3]`` and forehead in changing light; ``share`` of the skin changes where covered."""
    rng = np.random.default_rng(1)
    light = rng.uniform(-30, 30, (frames, 1, 1))
    face = rng.uniform(80, 200, (1, 250, 3)) + rng.normal(0, 5, (frames, 250, 3)) + light
    face[covered, : round(150 * share)] += [change, 0, 0]
    return face[:, :150].astype(np.float32), face[:, 150:].astype(np.float32)


@pytest.mark.parametrize("covered", [[], [3], [10, 11, 12, 30], list(range(5, 25))])
def test_frames_in_which_a_part_of_the_face_changes_colour_are_occluded(covered: list[int]) -> None:
    assert np.flatnonzero(occluded(*made(49, covered), CONFIG)).tolist() == covered


def test_a_hand_over_all_of_the_skin_is_not_taken_for_light() -> None:
    assert np.flatnonzero(occluded(*made(49, [7, 8], share=1.0), CONFIG)).tolist() == [7, 8]


def test_a_face_that_is_mostly_covered_has_occluded_frames_too() -> None:
    assert occluded(*made(49, list(range(30))), CONFIG).mean() > CONFIG.max_occluded_share


@pytest.mark.parametrize(("share", "change"), [(0.2, 60), (0.45, 3)])
def test_a_small_spot_or_a_faint_change_is_no_occlusion(share: float, change: float) -> None:
    assert not occluded(*made(49, [10, 11], share, change), CONFIG).any()


def test_frames_without_a_face_are_not_occluded() -> None:
    skin, forehead = made(20, [4])
    skin[[8, 9]] = forehead[[8, 9]] = np.nan
    assert np.flatnonzero(occluded(skin, forehead, CONFIG)).tolist() == [4]
    assert not occluded(np.full_like(skin, np.nan), np.full_like(forehead, np.nan), CONFIG).any()


def test_skin_is_neither_eyes_nor_lips_nor_rim(canonical: CanonicalFace) -> None:
    points, forehead = (set(part.tolist()) for part in skin_points(canonical))
    assert {4, 5, 50, 280, 18} <= points  # nose, cheeks, chin
    assert {8, 9} <= forehead
    assert not points & forehead

    assert not points & {13, 14, 61, 291, 33, 263, 159, 386, 234, 454, 10}


def test_a_hand_before_a_real_face_is_seen_and_speaking_is_not(
    man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace
) -> None:
    skin, forehead = skin_points(canonical)

    def seen(frames: np.ndarray) -> np.ndarray:
        points = np.concatenate([skin, forehead])
        colours = np.stack([skin_colours(f, face, points) for f, face in zip(frames, faces, strict=True)])
        return np.flatnonzero(occluded(colours[:, : len(skin)], colours[:, len(skin) :], CONFIG))

    faces: list[Face] = []
    for frame in man[:60:3]:
        face = finder.follow(frame, faces[-1].box) if faces else finder.census(frame)[0]
        assert face is not None
        faces.append(face)
    assert not len(seen(man[:60:3]))
    covered = man[:60:3].copy()
    for i in (8, 9, 10, 11, 12):
        box = faces[i].box
        centre = (round(box.centre[0]), round(box.y0 + 0.7 * box.height))
        cv2.ellipse(covered[i], centre, (round(0.6 * box.width), round(0.35 * box.height)), 0, 0, 360, HAND, -1)
    assert seen(covered).tolist() == [8, 9, 10, 11, 12]
