"""Which frames of a clip are analysed."""

from dataclasses import dataclass

import numpy as np

from curation.containers import MAX_FRAMES
from curation.sources import Clip
from curation.video import OversizedVideoError, Probe, SpanError, VideoConfig, analysis_fps, in_span, sample_indices
from shards.schema import FRAMES


@dataclass(frozen=True)
class Sampling:
    """The frames to analyse: ``indices[T]`` into the source's frames, shown at ``times_s[T]``, sampled at ``fps``.

    ``duration_s`` is the time from the clip's first to its last frame, of those that are shown and not only sampled.
    """

    indices: np.ndarray
    times_s: np.ndarray
    fps: float
    duration_s: float


def sample(probed: Probe, clip: Clip, config: VideoConfig) -> Sampling:
    """The frames of ``clip`` to analyse.

    Raises :class:`curation.video.SpanError` if the video does not have its span, and
    :class:`curation.video.OversizedVideoError` if that would be too long to sample.
    """
    span = in_span(probed.pts_s, clip.t0_s, clip.t1_s)
    if not len(span):
        raise SpanError(
            f"the span [{clip.t0_s}, {clip.t1_s}) s lies outside {clip.path}, which lasts {probed.duration_s:.2f} s; "
            "correct the manifest"
        )
    times = probed.pts_s[span]
    half = 0.5 / probed.fps if probed.fps else 0.0
    duration_s = float(times[-1] - times[0])
    fps = analysis_fps(duration_s, FRAMES, config, half)
    if duration_s * fps > MAX_FRAMES:
        raise OversizedVideoError(
            f"the times of {clip.path} span {duration_s / 3600:.0f} hours; re-encode it or correct the manifest's span"
        )
    chosen = span[sample_indices(times, fps)]
    return Sampling(chosen, probed.pts_s[chosen], fps, duration_s)


def pixels_in_span(probed: Probe, clip: Clip) -> int:
    """The pixels of all frames of ``clip``: what there is to decode, analysed or not."""
    return len(in_span(probed.pts_s, clip.t0_s, clip.t1_s)) * probed.width * probed.height


def probe_statistics(probed: Probe, clip: Clip, sampling: Sampling) -> dict[str, float]:
    """What is known of a clip before a frame of it is looked at."""
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
