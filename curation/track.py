"""The main character's face followed at the analysis rate: 478 landmarks, 52 blendshapes and a pose a frame."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from curation.character import Census, runs_of
from curation.config import CurationConfig
from curation.continuity import leaps
from curation.faces import FaceFinder
from curation.occlusion import skin_colours, skin_points
from curation.quality import face_sharpness, picture_change, thumbnail
from curation.recognition import Recogniser
from curation.shots import CutFinder, DissolveFinder
from landmarks.extract import measured_record
from landmarks.geometry import CanonicalFace
from landmarks.landmarker import Box, Face
from landmarks.record import BLENDSHAPES, POINTS, LandmarkRecord

_RECOGNITIONS_S = 2.0  # eight a window


@dataclass(frozen=True)
class Track:
    """One face over the T analysed frames of a clip.

    ``record`` holds NaN where the face was not found; ``metric[T, 478, 3]`` are its points in canonical space (cm);
    ``starts[T]`` is True where a frame does not continue the one before it: a cut, a leap of the face, each frame of a
    dissolve and the one after it. ``change[T]`` is how much the picture differs from the one before (0 to 255, infinite for
    the first), ``sharpness[T]`` the face's, ``skin[T, P, 3]`` and ``forehead[T, Q, 3]`` its colours, NaN where there is none.
    ``embeddings`` say who it is, ``[D]`` each, at the frames at which a network was asked.
    """

    record: LandmarkRecord
    metric: np.ndarray
    starts: np.ndarray
    change: np.ndarray
    sharpness: np.ndarray
    skin: np.ndarray
    forehead: np.ndarray
    embeddings: Mapping[int, np.ndarray]
    cuts: int
    dissolves: int
    leaps: int


def follow(
    frames: Iterable[np.ndarray],
    times_s: np.ndarray,
    fps: float,
    census: Census,
    finder: FaceFinder,
    canonical: CanonicalFace,
    size: tuple[int, int],
    config: CurationConfig,
    one_shot: bool = False,
    recogniser: Recogniser | None = None,
) -> Track:
    """Find the main face of ``census`` in every frame (uint8 RGB, shown at ``times_s[T]``, ``size`` = width, height).

    Each frame is searched around the face's last position, else around where the census expects it. Results are not
    smoothed: a blink at 12 fps is one frame. ``one_shot`` says that the frames are known to be one shot, so that no cuts or
    dissolves are looked for. The ``recogniser`` is asked who the face is twice a second.
    """
    width, height = size
    count = len(times_s)
    points = np.full((count, POINTS, 3), np.nan, np.float32)
    blendshapes = np.full((count, BLENDSHAPES), np.nan, np.float32)
    starts = np.zeros(count, bool)
    change = np.full(count, np.inf)
    sharpness = np.full(count, np.nan)
    skin, forehead = skin_points(canonical)
    colours = np.full((count, len(skin) + len(forehead), 3), np.nan, np.float32)
    embeddings: dict[int, np.ndarray] = {}
    every = max(1, round(fps / _RECOGNITIONS_S))
    cuts, dissolves = CutFinder(fps, config.shots), DissolveFinder(config.shots)
    previous: Box | None = None
    grey: np.ndarray | None = None
    for i, frame in enumerate(frames):
        small = thumbnail(frame)
        before, grey = grey, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if before is not None:
            change[i] = picture_change(before, grey)
        if not one_shot:
            cuts.add(small)
            dissolves.add(grey)
        face, kept = _search(frame, float(times_s[i]), previous, census, finder)
        starts[i] = face is not None and previous is not None and not kept
        if face is not None:
            points[i], blendshapes[i] = face.points, face.blendshapes
            previous = face.box
            sharpness[i] = face_sharpness(frame, face.box)
            colours[i] = skin_colours(frame, face, np.concatenate([skin, forehead]))
            if recogniser is not None and i % every == 0:
                embeddings[i] = recogniser.embed(frame, face)
    record, metric = measured_record(points, blendshapes, width, height, canonical)
    cut = cuts.cuts()
    leapt = leaps(record, metric, canonical.basis, config.continuity)
    starts |= leapt
    starts[cut] = True
    mixed = dissolves.frames() if not one_shot else np.zeros(count, bool)
    starts |= mixed | np.concatenate([[False], mixed[:-1]])
    return Track(
        record,
        metric,
        starts,
        change,
        sharpness,
        colours[:, : len(skin)],
        colours[:, len(skin) :],
        embeddings,
        len(cut),
        len(runs_of(mixed)),
        int(leapt.sum()),
    )


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
