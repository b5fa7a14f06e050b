from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.character import Census, CharacterConfig, stretches, take_census
from curation.config import CurationConfig
from curation.faces import FaceFinder
from curation.track import Track, follow
from curation.window import WindowConfig, candidate_windows
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import Box, Face


@pytest.fixture(scope="module")
def canonical(task_file: Path) -> CanonicalFace:
    return read_geometry(task_file)


def followed(frames: np.ndarray, finder: FaceFinder, canonical: CanonicalFace, one_shot: bool = False) -> Track:
    """Census every sixth frame, landmarks in all, as if the frames were shown at 12 fps."""
    times = 3.0 + np.arange(len(frames)) / 12
    census = take_census(times[::6], [finder.census(frame) for frame in frames[::6]])
    height, width = frames.shape[1:3]
    return follow(iter(frames), times, 12.0, census, finder, canonical, (width, height), CurationConfig(), one_shot)


def test_one_man_is_one_track(man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace) -> None:
    track = followed(man[:60:2], finder, canonical)
    record = track.record
    assert record.found.all()
    assert not track.starts.any()
    assert track.cuts == 0
    assert (record.width, record.height) == (176, 144)
    for points in (record.points, track.metric):
        assert points.shape == (30, 478, 3)
        assert np.isfinite(points).all()
    # Around the face that the whole-frame detector sees, frame by frame.
    for frame, points in zip(man[:60:10], record.points[::5], strict=True):
        (face,) = finder.census(frame)
        assert np.abs(face.points - points)[:, :2].max() * 176 < 4


def test_a_cut_begins_a_new_stretch_and_no_window_crosses_it(
    man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace
) -> None:
    """The same face at the same place on both sides: only the cut tells them apart."""
    frames = np.concatenate([man[:40], man[80:120, :, ::-1]])
    track = followed(frames, finder, canonical)
    assert np.flatnonzero(track.starts).tolist() == [40]
    assert track.cuts == 1
    assert track.record.found.all()
    spans = stretches(track.record.found, track.starts, 3)
    assert spans == [(0, 40), (40, 80)]
    windows = [w for s in spans for w in candidate_windows(s, track.record.found, WindowConfig(), CharacterConfig())]
    assert windows == [(0, 40), (40, 80)]


def test_no_window_shows_a_dissolve(man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace) -> None:
    weight = (np.arange(1, 9) / 9)[:, None, None, None]
    blend = np.rint((1 - weight) * man[36:44] + weight * man[72:80, :, ::-1]).astype(np.uint8)
    track = followed(np.concatenate([man[:36], blend, man[80:116, :, ::-1]]), finder, canonical)
    assert (track.cuts, track.dissolves) == (0, 1)
    for start, stop in stretches(track.record.found, track.starts, 3):
        assert stop - start <= 2 or stop <= 38 or start >= 42


def test_in_what_is_known_to_be_one_shot_no_cut_is_looked_for(
    man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace
) -> None:
    flash = man[:24].copy()
    flash[12:] = np.clip(flash[12:].astype(int) + 60, 0, 255)  # the light is switched on
    assert followed(flash, finder, canonical).cuts == 1
    known = followed(flash, finder, canonical, one_shot=True)
    assert (known.cuts, known.dissolves) == (0, 0)
    assert not known.starts.any()


def test_frames_without_the_face_are_nan_and_not_found(
    man: np.ndarray, street: np.ndarray, finder: FaceFinder, canonical: CanonicalFace
) -> None:
    away = np.stack([cv2.resize(frame, (176, 144)) for frame in street[100:108]])
    track = followed(np.concatenate([man[:18], away, man[18:36]]), finder, canonical)
    assert np.flatnonzero(~track.record.found).tolist() == list(range(18, 26))
    assert np.isnan(track.record.points[18:26]).all()
    assert np.isnan(track.record.pose[18:26]).all()
    assert track.starts[[18, 26]].all()
    assert stretches(track.record.found, track.starts, 3) == [(0, 18), (26, 44)]


class Script:
    """A finder that sees, in frame k (told by its grey), a face at each x of ``seen[k]``."""

    def __init__(self, seen: list[list[float]]) -> None:
        self.seen = seen
        self.asked: list[Box] = []

    def follow(self, frame: np.ndarray, expected: Box) -> Face | None:
        self.asked.append(expected)
        faces = [scripted(x) for x in self.seen[int(frame[0, 0, 0])]]
        fitting = [face for face in faces if face.box.continues(expected)]
        return max(fitting, key=lambda face: face.box.iou(expected), default=None)


def scripted(x: float) -> Face:
    points = np.random.default_rng(1).uniform(0.3, 0.6, (478, 3)).astype(np.float32)
    return Face(points, np.full(52, 0.5, np.float32), Box(x - 50, 50, x + 50, 150), 1.0)


def script(
    seen: list[list[float]], census: list[tuple[float, float | None]], canonical: CanonicalFace
) -> tuple[Track, Script]:
    """Frames at 0, 1, 2 … s; the census saw the main face at x (or not) at each time."""
    frames = [np.full((200, 1000, 3), i, np.uint8) for i in range(len(seen))]
    main = [None if x is None else scripted(x) for _, x in census]
    looks = Census(np.array([time for time, _ in census]), main, [[] for _ in main])
    finder = Script(seen)
    times = np.arange(len(seen), dtype=float)
    track = follow(frames, times, 1.0, looks, finder, canonical, (1000, 200), CurationConfig())  # type: ignore[arg-type]
    return track, finder


def test_a_face_is_searched_where_it_was_last(canonical: CanonicalFace) -> None:
    path = [100.0 + 40 * i for i in range(10)]
    track, finder = script([[x, 800] for x in path], [(0.0, 100.0)], canonical)
    assert track.record.found.all()
    assert not track.starts.any()
    assert [box.centre[0] for box in finder.asked[1:]] == path[:-1]


def test_a_jump_of_the_face_begins_a_new_stretch(canonical: CanonicalFace) -> None:
    track, _ = script([[100]] * 5 + [[700]] * 5, [(0.0, 100.0), (4.0, 100.0), (5.0, 700.0)], canonical)
    assert track.record.found.all()
    assert np.flatnonzero(track.starts).tolist() == [5]


def test_a_face_that_comes_back_where_it_was_continues(canonical: CanonicalFace) -> None:
    track, _ = script([[100]] * 3 + [[]] * 2 + [[130]] * 3, [(0.0, 100.0)], canonical)
    assert track.record.found.tolist() == [True] * 3 + [False] * 2 + [True] * 3
    assert not track.starts.any()


def test_a_face_that_comes_back_elsewhere_begins_a_new_stretch(canonical: CanonicalFace) -> None:
    track, _ = script([[100]] * 3 + [[]] * 2 + [[700]] * 3, [(0.0, 100.0), (5.0, 700.0)], canonical)
    assert track.record.found.tolist() == [True] * 3 + [False] * 2 + [True] * 3
    assert np.flatnonzero(track.starts).tolist() == [5]


def test_without_a_census_face_nothing_is_found(canonical: CanonicalFace) -> None:
    track, finder = script([[100]] * 4, [(0.0, None)], canonical)
    assert not track.record.found.any()
    assert finder.asked == []
