"""The windows of a followed face that could become samples: their crops, their statistics, and which of them are best."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

import numpy as np

from curation.census import Looks
from curation.character import face_height_px, stretches
from curation.config import CurationConfig
from curation.crop import CropWindow, choose_window_without, outside_share
from curation.identity_check import identity_shift_cm
from curation.motion import motion_statistics
from curation.occlusion import occluded
from curation.recognition import least_similarity
from curation.rules import first_failure
from curation.sampling import Sampling
from curation.sources import Clip
from curation.track import Track
from curation.window import candidate_windows, top_windows
from landmarks.geometry import CanonicalFace
from landmarks.landmarker import landmark_box
from landmarks.record import LandmarkRecord, interpolate_missing


@dataclass(frozen=True)
class Candidate:
    """A window ``[start, stop)`` of the sampled frames with its crop, its landmarks without gaps, and its statistics."""

    start: int
    stop: int
    crop: CropWindow
    record: LandmarkRecord
    statistics: dict[str, float]


def candidates(
    track: Track,
    clear: np.ndarray,
    looks: Looks,
    sampling: Sampling,
    clip: Clip,
    canonical: CanonicalFace,
    config: CurationConfig,
    statistics: dict[str, float],
) -> list[Candidate]:
    """Every window that could become the sample; adds the track's own statistics to ``statistics``.

    ``clear[T]`` are the frames away from a second character who is cut out. One who is tolerated over the clip must not
    fill a window either.
    """
    found, gap = track.record.found, config.character.max_gap
    no_starts = np.zeros(len(found), bool)
    single = stretches(found & clear, track.starts | _edges(clear), gap)
    spans = [
        window
        for stretch in single
        for window in candidate_windows(stretch, found & clear, config.window, config.character)
        if _looks_within(looks.contested_s, sampling.times_s, window) <= config.character.max_contested_run
    ]
    statistics |= {
        "cuts": float(track.cuts),
        "dissolves": float(track.dissolves),
        "leaps": float(track.leaps),
        "found_share": float(found.mean()),
        "track_run_s": _longest_s(stretches(found, no_starts, gap), sampling.fps),
        "shot_run_s": _longest_s(stretches(found, track.starts, gap), sampling.fps),
        "single_run_s": _longest_s(single, sampling.fps),
        "windows": float(len(spans)),
    }
    shift_cm = {span: _identity_shift_cm(track, *span, canonical) for span in single}
    return [
        _candidate(
            track,
            start,
            stop,
            looks,
            sampling,
            clip,
            config,
            _identity(
                track, (start, stop), next(s for s in single if s[0] <= start and stop <= s[1]), shift_cm, canonical
            ),
        )
        for start, stop in spans
    ]


def _identity(
    track: Track,
    window: tuple[int, int],
    shot: tuple[int, int],
    shift_cm: Mapping[tuple[int, int], float],
    canonical: CanonicalFace,
) -> dict[str, float]:
    said = {
        "identity_shift_cm": _identity_shift_cm(track, *window, canonical),
        "shot_identity_shift_cm": shift_cm[shot],
        "identity_similarity": least_similarity(track.embeddings, window, shot),
    }
    return {name: value for name, value in said.items() if not isnan(value)}


def _identity_shift_cm(track: Track, start: int, stop: int, canonical: CanonicalFace) -> float:
    part = slice(start, stop)
    return identity_shift_cm(track.metric[part], track.record.frames(part), canonical.basis)


def _candidate(
    track: Track,
    start: int,
    stop: int,
    looks: Looks,
    sampling: Sampling,
    clip: Clip,
    config: CurationConfig,
    identity: dict[str, float],
) -> Candidate:
    whole, part = track.record, slice(start, stop)
    record = whole.frames(part)
    width, height = record.width, record.height
    points = record.points[record.found]
    boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in (landmark_box(p, width, height) for p in points)])
    height_px = float(np.median(face_height_px(points, width, height)))
    times_s = sampling.times_s[part]
    aside = {kind: looks.aside_heads(kind, float(times_s[0]), float(times_s[-1])) for kind in ("poster", "mirror")}
    avoid = [box for seen in aside.values() for box in seen]
    crop = choose_window_without(boxes, height_px, looks.content, avoid, clip.clip_id, config.crop)
    statistics = motion_statistics(
        record.points, track.metric[part], record.blendshapes, record.pose, width, height, sampling.fps
    )
    statistics |= identity | {
        "outside_share": outside_share(boxes, looks.content),
        **{f"{kind}_in_crop": max(map(crop.part_inside, seen), default=0.0) for kind, seen in aside.items()},
        "frozen_share": float(np.mean(track.change[start + 1 : stop] <= config.quality.still_change)),
        "sharpness": float(np.nanmedian(track.sharpness[part])),
        "occluded_share": float(occluded(track.skin[part], track.forehead[part], config.occlusion).mean()),
        "upscale": crop.upscale,
        "pad_share": crop.pad_share,
    }
    return Candidate(start, stop, crop, interpolate_missing(record, config.character.max_gap), statistics)


def best_windows(
    candidates: list[Candidate], statistics: Mapping[str, float], config: CurationConfig
) -> list[Candidate]:
    """The windows that move most among those that pass every rule, the best first; the best one of all when none passes."""
    passing = [c for c in candidates if first_failure({**statistics, **c.statistics}, config) is None]
    ranked = passing or candidates
    spans = [(candidate.start, candidate.stop) for candidate in ranked]
    scores = [candidate.statistics["motion_score"] for candidate in ranked]
    return [ranked[i] for i in top_windows(spans, scores, config.window.most if passing else 1)]


def _looks_within(looks_s: np.ndarray, times_s: np.ndarray, window: tuple[int, int]) -> int:
    return int(np.sum((looks_s >= times_s[window[0]]) & (looks_s <= times_s[window[1] - 1])))


def _longest_s(spans: list[tuple[int, int]], fps: float) -> float:
    """Seconds from the first to the last frame of the longest span; 0 without any."""
    return max((stop - start - 1 for start, stop in spans), default=0) / fps


def _edges(flags: np.ndarray) -> np.ndarray:
    """True where ``flags`` differs from the frame before."""
    return np.concatenate([[False], np.diff(flags.astype(np.int8)) != 0])
