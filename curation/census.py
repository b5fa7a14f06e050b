"""The census of a clip: what its frames show when they are looked at twice a second, before anything dear is done."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from curation.bars import BarFinder
from curation.bystanders import Bystander, Kind, bystanders, without
from curation.character import (
    Census,
    clear_frames,
    contested,
    face_height_px,
    runs_of,
    stretches,
    take_census,
    tolerated,
)
from curation.config import CurationConfig
from curation.crop import head_boxes
from curation.faces import FaceFinder
from curation.insets import InsetFinder
from landmarks.geometry import CanonicalFace
from landmarks.landmarker import Box, Region


@dataclass(frozen=True)
class Looks:
    """The faces, the picture inside the source's bars, and which looks a second character contests, bool ``[N]``.

    Pictures and mirror images are ``aside``: no second characters, but not for a crop to show either.
    """

    census: Census
    content: Region
    contest: np.ndarray
    size: tuple[int, int]
    aside: list[Bystander]
    inset: float

    @property
    def contested_s(self) -> np.ndarray:
        """When a second character was seen."""
        return np.asarray(self.census.times_s[self.contest])

    def aside_heads(self, kind: Kind, start_s: float, stop_s: float) -> list[Box]:
        """Where heads of pictures or mirror images are between two times, source px."""
        times_s = self.census.times_s
        boxes = [box for one in self.aside if one.kind == kind for box in one.boxes(times_s, start_s, stop_s)]
        corners = np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes]).reshape(-1, 4)
        return [Box(*head) for head in head_boxes(corners).tolist()]


def look_times(times_s: np.ndarray, fps: float, config: CurationConfig) -> np.ndarray:
    """Which of the sampled frames at ``times_s[T]``, ``fps`` a second, to look at."""
    last = len(times_s) - 1
    # The last frame too: else a second face could enter after the last look.
    return np.asarray(times_s[sorted({*range(0, last, max(1, round(fps / config.census.fps))), last})])


def look(
    frames: Iterable[np.ndarray],
    times_s: np.ndarray,
    finder: FaceFinder,
    canonical: CanonicalFace,
    config: CurationConfig,
) -> Looks:
    """Look at ``frames`` (uint8 RGB ``[H, W, 3]``), shown at ``times_s[N]``."""
    bars, insets = BarFinder(), InsetFinder()
    faces = []
    size = (0, 0)
    for frame in frames:
        bars.add(frame)
        insets.add(frame)
        faces.append(finder.census(frame))
        size = (frame.shape[1], frame.shape[0])
    census, content = take_census(times_s, faces), bars.content()
    aside = bystanders(census, size, canonical, config.bystanders)
    contest = contested(without(census, aside), content[2] * content[3], config.character)
    return Looks(census, content, contest, size, aside, _inset(insets, census, content))


def _inset(insets: InsetFinder, census: Census, content: Region) -> float:
    boxes = np.array([[f.box.x0, f.box.y0, f.box.x1, f.box.y1] for f in census.main if f is not None])
    if not len(boxes):
        return 0.0
    # Medians: of somebody who walks through the picture, no window need hold the whole way.
    return insets.support(Box(*np.median(boxes, axis=0).tolist()), content)


def clear_of_others(looks: Looks, times_s: np.ndarray, config: CurationConfig) -> np.ndarray:
    """Which of the frames at ``times_s[T]`` show no second character, or one who is tolerated over the clip; bool ``[T]``."""
    if tolerated(looks.contest, config.character):
        return np.ones(len(times_s), bool)
    return clear_frames(times_s, looks.census, looks.contest)


def census_statistics(looks: Looks, clear: np.ndarray, fps: float, config: CurationConfig) -> dict[str, float]:
    """The statistics of the census; ``clear[T]`` as :func:`clear_of_others` says of frames sampled at ``fps``."""
    census, (width, height) = looks.census, looks.size
    seen = np.array([face is not None for face in census.main])
    runs = stretches(seen, np.zeros(len(seen), bool), max_gap=1)
    # A face seen from look i to look j may have been there since just after look i-1 and until just before look j+1.
    spans = [census.times_s[stop - 1] - census.times_s[start] + 2 / config.census.fps for start, stop in runs]
    heights = [face_height_px(face.points, width, height) for face in census.main if face is not None]
    face_height = float(np.median(heights)) if heights else float("nan")
    return {
        "bars_share": 1 - looks.content[2] * looks.content[3] / (width * height),
        "inset": looks.inset,
        "face_run_s": float(max(spans, default=0.0)),
        "contested_share": float(looks.contest.mean()),
        "contested_run": float(max((stop - start for start, stop in runs_of(looks.contest)), default=0)),
        "clear_run_s": max((stop - start - 1 for start, stop in runs_of(clear)), default=0) / fps,
        "background_faces": float(max(len(others) for others in census.others)),
        "posters": float(sum(one.kind == "poster" for one in looks.aside)),
        "mirrors": float(sum(one.kind == "mirror" for one in looks.aside)),
        "face_height_px": face_height,
        "face_frame_share": face_height / looks.content[3],
    }
