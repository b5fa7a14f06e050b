"""Single-character footage (SkyReels-A1 §5.1): who is the main character, who else is there, and for how long."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from faceloom.config import Section
from landmarks.landmarker import Box, Face


class CharacterConfig(Section):
    """When footage counts as showing one character, large enough and long enough."""

    min_face_px: float = 64.0
    """Median forehead-to-chin height in source px."""
    min_face_window_share: float = 0.15
    """Of the smallest window that the crop's upscale limit allows, so that a full-body shot passes when its face survives."""
    max_face_frame_share: float = 0.85
    second_face_area: float = 0.15
    """A second face contests a census frame from this share of the main face's area on ..."""
    second_face_frame_share: float = 0.005
    """... or from this share of the frame's area on."""
    max_contested_share: float = 0.05
    max_contested_run: int = 2
    """Longest run of contested census frames that is tolerated; more are cut out."""
    min_found_share: float = 0.95
    """Of the frames of a window in which the face was followed."""
    max_gap: int = Field(3, ge=0)
    """Longest run of analysed frames without the face inside a window; they are interpolated and flagged."""


@dataclass(frozen=True)
class Census:
    """The faces of the census frames: ``times_s[N]``, the main character's face or None, and everyone else's.

    ``tracks`` are the others again, each over the frames that show it.
    """

    times_s: np.ndarray
    main: list[Face | None]
    others: list[list[Face]]
    tracks: list[dict[int, Face]] = field(default_factory=list)

    def expected(self, time_s: float) -> Box | None:
        """Where the main face should be at ``time_s``: interpolated between the census frames that show it."""
        seen = [i for i, face in enumerate(self.main) if face is not None]
        if not seen:
            return None
        at = int(np.searchsorted(self.times_s[seen], time_s))
        before, after = self.main[seen[max(0, at - 1)]], self.main[seen[min(at, len(seen) - 1)]]
        assert before is not None
        assert after is not None
        start, end = self.times_s[seen[max(0, at - 1)]], self.times_s[seen[min(at, len(seen) - 1)]]
        share = float(np.clip((time_s - start) / (end - start), 0, 1)) if end > start else 0.0
        a = np.array([before.box.x0, before.box.y0, before.box.x1, before.box.y1])
        b = np.array([after.box.x0, after.box.y0, after.box.x1, after.box.y1])
        return Box(*((1 - share) * a + share * b).tolist())


def take_census(times_s: np.ndarray, faces: Sequence[Sequence[Face]]) -> Census:
    """Link faces over census frames into tracks and name the main one: the largest sum of area times score.

    ``faces[N]`` are the verified faces of the frames at ``times_s[N]``. Linking is greedy, best overlap first, and bridges
    one missed census frame. A main character who leaves and returns stays the main one: tracks that never coexist with the
    main track and continue its size are left to the shot and continuity checks.
    """
    tracks: list[dict[int, Face]] = []
    for frame, present in enumerate(faces):
        open_tracks = [t for t in tracks if frame - max(t) <= 2]
        pairs = [
            (track[max(track)].box.iou(face.box), -i, track, face)
            for track in open_tracks
            for i, face in enumerate(present)
            if track[max(track)].box.continues(face.box)
        ]
        taken: set[int] = set()
        for _, _, track, face in sorted(pairs, key=lambda pair: pair[:2], reverse=True):
            if max(track) < frame and id(face) not in taken:
                track[frame] = face
                taken.add(id(face))
        tracks.extend({frame: face} for face in present if id(face) not in taken)
    main: list[Face | None] = [None] * len(faces)
    # Tracks in order of weight each fill the frames that no heavier one has: the main character through cuts and absences.
    rest: list[dict[int, Face]] = []
    for track in sorted(tracks, key=lambda t: -sum(f.box.area * f.score for f in t.values())):
        if any(main[frame] is not None for frame in track):
            rest.append(track)
        else:
            for frame, face in track.items():
                main[frame] = face
    others = [[face for face in present if face is not main[i]] for i, present in enumerate(faces)]
    return Census(np.asarray(times_s, np.float64), main, others, rest)


def contested(census: Census, frame_area: float, config: CharacterConfig) -> np.ndarray:
    """For each census frame whether a second face is large enough to be a second character; bool ``[N]``."""
    result = np.zeros(len(census.main), bool)
    for i, (main, others) in enumerate(zip(census.main, census.others, strict=True)):
        limit = config.second_face_frame_share * frame_area
        if main is not None:
            limit = min(limit, config.second_face_area * main.box.area)
        result[i] = any(face.box.area >= limit for face in others)
    return result


def tolerated(contest: np.ndarray, config: CharacterConfig) -> bool:
    """Whether contested frames are so few and brief that they are a passer-by."""
    runs = [stop - start for start, stop in runs_of(contest)]
    return float(contest.mean()) <= config.max_contested_share and max(runs, default=0) <= config.max_contested_run


def clear_frames(times_s: np.ndarray, census: Census, contest: np.ndarray) -> np.ndarray:
    """Which of the frames at ``times_s[T]`` lie between two uncontested census frames; bool ``[T]``.

    A census frame beside a contested one counts as contested: who enters is often missed at first, half turned or half in.
    """
    contest = contest | np.append(contest[1:], False) | np.append(False, contest[:-1])
    after = np.clip(np.searchsorted(census.times_s, times_s, side="left"), 0, len(contest) - 1)
    before = np.clip(np.searchsorted(census.times_s, times_s, side="right") - 1, 0, len(contest) - 1)
    return np.asarray(~(contest[before] | contest[after]))


def runs_of(flags: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of True as ``(start, stop)``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def stretches(found: np.ndarray, starts: np.ndarray, max_gap: int) -> list[tuple[int, int]]:
    """Stretches ``(start, stop)`` of frames that show the face without a gap longer than ``max_gap``.

    ``found[T]`` says where the face was followed; a True in ``starts[T]`` begins a new stretch (a cut, a jump). Every
    stretch begins and ends on a found frame.
    """
    result: list[tuple[int, int]] = []
    edges = [0, *[int(i) for i in np.flatnonzero(starts) if i > 0], len(found)]
    for low, high in itertools.pairwise(edges):
        seen = np.flatnonzero(found[low:high]) + low
        if not len(seen):
            continue
        groups = np.split(seen, np.flatnonzero(np.diff(seen) > max_gap + 1) + 1)
        result.extend((int(group[0]), int(group[-1]) + 1) for group in groups)
    return result


def face_height_px(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Forehead (10) to chin (152) distance in source px, of ``points[..., 478, 3]`` normalised to the source frame."""
    span = (points[..., 10, :2] - points[..., 152, :2]) * np.array([width, height])
    return np.asarray(np.linalg.norm(span, axis=-1))
