"""The rules that decide a clip: a table over its statistics, walked in order of cost.

A rule sees statistics and configuration only, never pixels, so that it can be asked again of the ledger. A rule whose
statistics were not measured is passed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan

from curation.config import CurationConfig
from curation.motion import motion_ratio
from curation.outcome import Rejected
from curation.statistics import Stage
from shards.schema import HEIGHT

Statistics = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """``value`` must be at least (or, with ``at_most``, at most) ``threshold``."""

    name: str
    stage: Stage
    value: Callable[[Statistics, CurationConfig], float]
    threshold: Callable[[CurationConfig], float]
    at_most: bool = False


def _of(name: str) -> Callable[[Statistics, CurationConfig], float]:
    return lambda s, _: s[name]


def _least_s(c: CurationConfig) -> float:
    """The shortest useful stretch: ``min_frames`` at the nominal rate."""
    return (c.window.min_frames - 1) / c.video.fps


def _second_face(s: Statistics, c: CurationConfig) -> float:
    """The contested share, unless a long enough stretch without a second character can be cut out."""
    return s["contested_share"] if s["clear_run_s"] < _least_s(c) else 0.0


RULES: tuple[Rule, ...] = (
    Rule("duplicate", "probe", _of("duplicate"), lambda _: 0.0, at_most=True),
    Rule("too_short", "probe", _of("duration_s"), _least_s),
    Rule("too_few_frames", "probe", _of("repeated_share"), lambda c: c.video.max_repeated_share, at_most=True),
    Rule("no_face", "census", _of("face_run_s"), _least_s),
    Rule("second_face", "census", _second_face, lambda c: c.character.max_contested_share, at_most=True),
    Rule("face_too_small", "census", _of("face_height_px"), lambda c: c.character.min_face_px),
    Rule(
        "face_too_small_in_window",
        "census",
        lambda s, c: s["face_height_px"] / (HEIGHT / c.crop.max_upscale),
        lambda c: c.character.min_face_window_share,
    ),
    Rule("face_too_large", "census", _of("face_frame_share"), lambda c: c.character.max_face_frame_share, at_most=True),
    Rule("face_lost", "track", _of("track_run_s"), _least_s),
    Rule("shot_too_short", "track", _of("shot_run_s"), _least_s),
    Rule("second_face_in_shot", "track", _of("single_run_s"), _least_s),
    Rule("no_window", "track", _of("windows"), lambda _: 1.0),
    Rule("face_outside", "window", _of("outside_share"), lambda c: c.crop.max_outside_share, at_most=True),
    Rule("yaw", "window", _of("yaw_p95_deg"), lambda c: c.motion.max_yaw_deg, at_most=True),
    Rule(
        "pitch_median",
        "window",
        lambda s, _: abs(s["pitch_median_deg"]),
        lambda c: c.motion.max_pitch_deg,
        at_most=True,
    ),
    Rule("pitch", "window", _of("pitch_p95_deg"), lambda c: c.motion.max_pitch_deg, at_most=True),
    Rule("roll", "window", _of("roll_p95_deg"), lambda c: c.motion.max_roll_deg, at_most=True),
    Rule("speed", "window", _of("speed_p95_deg_s"), lambda c: c.motion.max_speed_deg_s, at_most=True),
    Rule("motion", "window", lambda s, c: motion_ratio(s, c.motion), lambda _: 1.0),
    Rule("upscale", "window", _of("upscale"), lambda c: c.crop.max_upscale, at_most=True),
    Rule("padding", "window", _of("pad_share"), lambda c: c.crop.max_pad_share, at_most=True),
)


def first_failure(statistics: Statistics, config: CurationConfig) -> Rejected | None:
    """The first rule, in order of cost, that the statistics break; None when they break none.

    Rules whose statistics are absent or NaN are passed over, so the same call serves after every stage.
    """
    for rule in RULES:
        try:
            value = rule.value(statistics, config)
        except KeyError:
            continue
        if isnan(value):
            continue
        threshold = rule.threshold(config)
        if value > threshold if rule.at_most else value < threshold:
            return Rejected(rule.name, value, threshold)
    return None
