"""The CPU stage: from a manifest row to a verdict, and for a clip that passes, sample videos and landmarks.

Cheap before dear: container tables, then a sparse census, then landmarks, then the crop. The first rule that fails ends the
clip's cost, unless all statistics are asked for.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from curation.census import Looks, census_statistics, clear_of_others, look, look_times
from curation.character import face_height_px, stretches
from curation.config import CurationConfig
from curation.crop import CropWindow, choose_window_without, outside_share, render_window
from curation.faces import FaceFinder
from curation.identity_check import identity_shift_cm
from curation.motion import motion_statistics
from curation.occlusion import occluded
from curation.outcome import Rejected
from curation.recognition import MODEL_KEY, NETWORKS, Recogniser, least_similarity
from curation.rules import first_failure
from curation.sample_video import encode_sample, read_sound
from curation.sources import Clip
from curation.stages import StageClock
from curation.track import Track, follow
from curation.video import FrameReader, Probe, SpanError, analysis_fps, in_span, probe, sample_indices
from curation.window import candidate_windows, pad_to_window, top_windows
from faceloom.models import user_path
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import landmark_box
from landmarks.record import LandmarkRecord, interpolate_missing, quantise
from shards.schema import FRAMES, encode_field

if TYPE_CHECKING:
    from landmarks.smirk_encoder import SmirkEncoder


@dataclass(frozen=True)
class FaceTools:
    """What the stage keeps loaded between clips."""

    finder: FaceFinder
    canonical: CanonicalFace
    smirk: "SmirkEncoder | None"
    recogniser: Recogniser | None = None

    @classmethod
    def load(cls, task_file: Path, config: CurationConfig) -> "FaceTools":
        """Open the FaceLandmarker bundle and, where the config names it, SMIRK."""
        smirk = None
        if config.landmarks.backend == "smirk":
            from landmarks.smirk_encoder import SmirkEncoder

            smirk = SmirkEncoder(user_path("smirk-encoder", "landmarks.backend"))
        model = config.identity_check.model
        recogniser = None if model == "none" else Recogniser(model, user_path(NETWORKS[model].file, MODEL_KEY))
        return cls(FaceFinder(task_file, config.census), read_geometry(task_file), smirk, recogniser)


@dataclass(frozen=True)
class Draft:
    """A window that passed every rule: its encoded fields so far, and the provenance that becomes ``meta.json``."""

    fields: dict[str, bytes]
    meta: dict[str, Any]


@dataclass
class Findings:
    """What is known of a clip; filled stage by stage, so that a failure leaves what was measured before it."""

    statistics: dict[str, float]
    decoder: str | None = None
    rejected: Rejected | None = None
    passed: "Passed | None" = None


@dataclass(frozen=True)
class Sampling:
    """The frames to analyse: ``indices[T]`` into the source's frames, shown at ``times_s[T]``, sampled at ``fps``.

    ``duration_s`` is the time from the clip's first to its last frame, of those that are shown and not only sampled.
    """

    indices: np.ndarray
    times_s: np.ndarray
    fps: float
    duration_s: float


@dataclass(frozen=True)
class Candidate:
    """A window ``[start, stop)`` of the sampled frames with its crop, its landmarks without gaps, and its statistics."""

    start: int
    stop: int
    crop: CropWindow
    record: LandmarkRecord
    statistics: dict[str, float]


@dataclass(frozen=True)
class Passed:
    """A clip that broke no rule, opened for reading, and the windows of it that become samples, the best first."""

    reader: FrameReader
    probed: Probe
    sampling: Sampling
    windows: list[Candidate]

    def clip_of(self, clip: Clip, number: int) -> Clip:
        """The clip that a window is: the manifest's own for the first, and for the others their span of its source."""
        if number == 0:
            return clip
        window = self.windows[number]
        times_s = self.sampling.times_s - self.probed.pts_s[0]
        t0_s, last_s = round(float(times_s[window.start]), 6), float(times_s[window.stop - 1])
        return replace(clip, t0_s=t0_s, t1_s=round(last_s + 1 / self.sampling.fps, 6))


def examine(
    clip: Clip,
    tools: FaceTools,
    config: CurationConfig,
    findings: Findings,
    clock: StageClock,
    all_statistics: bool = False,
) -> None:
    """Decide ``clip``: sets ``findings.rejected`` to the first rule it breaks, else ``findings.passed``.

    Raises :class:`curation.video.VideoError` and whatever a decoder or model raises; ``clock.current`` names the stage.
    """
    statistics = findings.statistics

    def ends_here() -> bool:
        findings.rejected = first_failure(statistics, config)
        return findings.rejected is not None and not all_statistics

    with clock.stage("probe"):
        probed = probe(clip.path)
        sampling = _sampling(probed, clip, config)
        statistics |= _probe_statistics(probed, clip, sampling)
    if ends_here():
        return

    with clock.stage("census"):
        reader = FrameReader(probed)
        times_s = look_times(sampling.times_s, sampling.fps, config)
        seen = reader.frames(np.searchsorted(probed.pts_s, times_s))
        looks = look(seen, times_s, tools.finder, tools.canonical, config)
        findings.decoder = reader.decoder
        clear = clear_of_others(looks, sampling.times_s, config)
        statistics |= census_statistics(looks, clear, sampling.fps, config)
    if ends_here() or statistics["face_run_s"] == 0:
        return

    with clock.stage("landmarks"):
        track = follow(
            reader.frames(sampling.indices),
            sampling.times_s,
            sampling.fps,
            looks.census,
            tools.finder,
            tools.canonical,
            (probed.width, probed.height),
            config,
            one_shot=clip.single_shot is True,
            recogniser=tools.recogniser,
        )
        findings.decoder = reader.decoder
    with clock.stage("motion"):
        candidates = _candidates(track, clear, looks, sampling, clip, tools, config, statistics)
        windows = _windows(candidates, statistics, config)
        if windows:
            statistics |= windows[0].statistics
    if not ends_here() and findings.rejected is None:
        findings.passed = Passed(reader, probed, sampling, windows)


def make_draft(
    clip: Clip, window: Candidate, passed: Passed, tools: FaceTools, config: CurationConfig, clock: StageClock
) -> Draft:
    """The draft of one of the windows that ``passed``; ``clip`` is the clip that it is.

    Raises whatever a decoder or model raises; ``clock.current`` names the stage.
    """
    sampling = passed.sampling
    with clock.stage("crop"):
        shown = pad_to_window(np.arange(window.start, window.stop))
        source = passed.reader.frames(sampling.indices[shown])
        frames, record = _shown(source, window.record, shown - window.start, window.crop, tools)
    with clock.stage("encode"):
        return _draft(clip, passed.probed, sampling, window, shown, frames, record, config)


def _sampling(probed: Probe, clip: Clip, config: CurationConfig) -> Sampling:
    span = in_span(probed.pts_s, clip.t0_s, clip.t1_s)
    if not len(span):
        raise SpanError(
            f"the span [{clip.t0_s}, {clip.t1_s}) s lies outside {clip.path}, which lasts {probed.duration_s:.2f} s; "
            "correct the manifest"
        )
    times = probed.pts_s[span]
    half = 0.5 / probed.fps if probed.fps else 0.0
    duration_s = float(times[-1] - times[0])
    fps = analysis_fps(duration_s, FRAMES, config.video, half)
    chosen = span[sample_indices(times, fps)]
    return Sampling(chosen, probed.pts_s[chosen], fps, duration_s)


def _probe_statistics(probed: Probe, clip: Clip, sampling: Sampling) -> dict[str, float]:
    repeats = np.diff(sampling.indices) == 0
    return {
        "duplicate": float(clip.duplicate_of is not None),
        "width_px": float(probed.width),
        "height_px": float(probed.height),
        "source_fps": probed.fps,
        "duration_s": sampling.duration_s,
        "analysis_fps": sampling.fps,
        "repeated_share": float(repeats.mean()) if len(repeats) else 0.0,
    }


def _candidates(
    track: Track,
    clear: np.ndarray,
    looks: Looks,
    sampling: Sampling,
    clip: Clip,
    tools: FaceTools,
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
    shift_cm = {span: _identity_shift_cm(track, *span, tools) for span in single}
    return [
        _candidate(
            track,
            start,
            stop,
            looks,
            sampling,
            clip,
            config,
            _identity(track, (start, stop), next(s for s in single if s[0] <= start and stop <= s[1]), shift_cm, tools),
        )
        for start, stop in spans
    ]


def _identity(
    track: Track,
    window: tuple[int, int],
    shot: tuple[int, int],
    shift_cm: Mapping[tuple[int, int], float],
    tools: FaceTools,
) -> dict[str, float]:
    return {
        "identity_shift_cm": _identity_shift_cm(track, *window, tools),
        "shot_identity_shift_cm": shift_cm[shot],
        "identity_similarity": least_similarity(track.embeddings, window, shot),
    }


def _identity_shift_cm(track: Track, start: int, stop: int, tools: FaceTools) -> float:
    part = slice(start, stop)
    return identity_shift_cm(track.metric[part], track.record.frames(part), tools.canonical.basis)


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
    aside = {kind: looks.aside_boxes(kind, float(times_s[0]), float(times_s[-1])) for kind in ("poster", "mirror")}
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


def _windows(candidates: list[Candidate], statistics: Mapping[str, float], config: CurationConfig) -> list[Candidate]:
    """The windows that move most among those that pass every rule, the best first; the best one of all when none passes."""
    passing = [c for c in candidates if first_failure({**statistics, **c.statistics}, config) is None]
    ranked = passing or candidates
    spans = [(candidate.start, candidate.stop) for candidate in ranked]
    scores = [candidate.statistics["motion_score"] for candidate in ranked]
    return [ranked[i] for i in top_windows(spans, scores, config.window.most if passing else 1)]


def _shown(
    source: Iterable[np.ndarray], record: LandmarkRecord, at: np.ndarray, crop: CropWindow, tools: FaceTools
) -> tuple[np.ndarray, LandmarkRecord]:
    """The frames of the sample, and its record with SMIRK's part; from one reading of the ``source`` frames.

    ``record`` is of the window, ``at`` says which of its frames the ``source`` shows: all, and the last again as padding,
    which plays no part in what SMIRK makes of the clip.
    """
    rendered: list[np.ndarray] = []

    def rendering() -> Iterator[np.ndarray]:
        for frame in source:
            rendered.append(render_window(frame, crop))
            yield frame

    frames = rendering()
    if tools.smirk is not None:
        motion = tools.smirk.encode(islice(frames, len(record)), record.points, record.found)
        record = replace(record, smirk=motion)
    deque(frames, maxlen=0)
    return np.stack(rendered), record.frames(at)


def _draft(
    clip: Clip,
    probed: Probe,
    sampling: Sampling,
    best: Candidate,
    shown: np.ndarray,
    frames: np.ndarray,
    record: LandmarkRecord,
    config: CurationConfig,
) -> Draft:
    n_valid = best.stop - best.start
    audio = "none"
    sound = None
    if probed.has_audio:
        try:
            sound = read_sound(clip.path, float(sampling.times_s[best.start]), n_valid / sampling.fps)
            audio = "none" if sound is None else "kept"
        except (av.FFmpegError, ValueError):  # ValueError: the resampler, when rate or layout changes mid-stream
            audio = "unreadable"
    crop = best.crop
    fields = {
        "video.mp4": encode_sample(frames, sampling.fps, sound, config.sample_video),
        "landmarks.u16.npy": encode_field("landmarks.u16.npy", quantise(record.points)),
        "blendshapes.npy": encode_field("blendshapes.npy", record.blendshapes.astype(np.float16)),
        "pose.npy": encode_field("pose.npy", record.pose),
    }
    if record.smirk is not None:
        motion = {
            "smirk.npy": record.smirk.parameters,
            "smirk_shape.npy": record.smirk.shape,
            "smirk_crop.npy": record.smirk.crop,
        }
        fields |= {name: encode_field(name, values) for name, values in motion.items()}
    meta = {
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "source_key": clip.source_key,
        "person_id": clip.person_id,
        "licence": clip.licence,
        "fps": sampling.fps,
        "n_valid": n_valid,
        "source_wh": [probed.width, probed.height],
        "pts_s": [round(float(t), 6) for t in sampling.times_s[shown]],
        "crop_xywh": [crop.x, crop.y, crop.w, crop.h],
        "valid_x0x1": list(crop.valid_x0x1),
        "crop_mode": crop.mode,
        "found": record.found.tolist(),
        "landmark_backend": config.landmarks.backend,
        "audio": audio,
    }
    return Draft(fields, meta)


def _looks_within(looks_s: np.ndarray, times_s: np.ndarray, window: tuple[int, int]) -> int:
    return int(np.sum((looks_s >= times_s[window[0]]) & (looks_s <= times_s[window[1] - 1])))


def _longest_s(spans: list[tuple[int, int]], fps: float) -> float:
    """Seconds from the first to the last frame of the longest span; 0 without any."""
    return max((stop - start - 1 for start, stop in spans), default=0) / fps


def _edges(flags: np.ndarray) -> np.ndarray:
    """True where ``flags`` differs from the frame before."""
    return np.concatenate([[False], np.diff(flags.astype(np.int8)) != 0])
