"""The main character's face followed at the analysis rate: 478 landmarks, 52 blendshapes and a pose a frame."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from curation.character import Census
from curation.faces import FaceFinder
from curation.shots import CutFinder, ShotConfig
from landmarks.extract import measured_record
from landmarks.geometry import CanonicalFace
from landmarks.landmarker import Box, Face
from landmarks.record import BLENDSHAPES, POINTS, LandmarkRecord


@dataclass(frozen=True)
class Track:
    """One face over the T analysed frames of a clip.

    ``record`` holds NaN where the face was not found; ``metric[T, 478, 3]`` are its points in canonical space (cm);
    ``starts[T]`` is True where a frame does not continue the one before it: a cut, or a jump of the face.
    """

    record: LandmarkRecord
    metric: np.ndarray
    starts: np.ndarray
    cuts: int


def follow(
    frames: Iterable[np.ndarray],
    times_s: np.ndarray,
    fps: float,
    census: Census,
    finder: FaceFinder,
    canonical: CanonicalFace,
    size: tuple[int, int],
    shots: ShotConfig,
) -> Track:
    """Find the main face of ``census`` in every frame (uint8 RGB, shown at ``times_s[T]``, ``size`` = width, height).

    Each frame is searched around the face's last position, else around where the census expects it. Results are not
    smoothed: a blink at 12 fps is one frame.
    """
    width, height = size
    count = len(times_s)
    points = np.full((count, POINTS, 3), np.nan, np.float32)
    blendshapes = np.full((count, BLENDSHAPES), np.nan, np.float32)
    starts = np.zeros(count, bool)
    finder_of_cuts = CutFinder(fps, shots)
    previous: Box | None = None
    for i, frame in enumerate(frames):
        finder_of_cuts.add(frame)
        face, kept = _search(frame, float(times_s[i]), previous, census, finder)
        starts[i] = face is not None and previous is not None and not kept
        if face is not None:
            points[i], blendshapes[i] = face.points, face.blendshapes
            previous = face.box
    cuts = finder_of_cuts.cuts()
    starts[cuts] = True
    record, metric = measured_record(points, blendshapes, width, height, canonical)
    return Track(record, metric, starts, len(cuts))


def _search(
    frame: np.ndarray, time_s: float, previous: Box | None, census: Census, finder: FaceFinder
) -> tuple[Face | None, bool]:
    """The face, and whether it continues the previous one."""
    if previous is not None:
        face = finder.follow(frame, previous)
        if face is not None:
            return face, True
    expected = census.expected(time_s)
    if expected is None:
        return None, False
    face = finder.follow(frame, expected)
    return face, face is not None and previous is not None and face.box.continues(previous)
