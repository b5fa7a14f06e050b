"""The rules that decide a clip: a table over its statistics, walked in order of cost.

A rule sees statistics and configuration only, never pixels, so that it can be asked again of the ledger. A rule whose
statistics were not measured is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, get_args

from curation.config import CurationConfig
from curation.expressions import (
    Choice,
    Expression,
    Setting,
    as_json,
    constant,
    evaluate,
    nodes,
    read_setting,
    setting,
    statistic,
    where,
)
from curation.motion import MOTION_RATIO, POSE_LIMIT
from curation.outcome import Rejected
from curation.statistics import Stage
from shards.schema import HEIGHT

_DEFAULTS = CurationConfig()


@dataclass(frozen=True)
class Rule:
    """``value`` must be at least (or, with ``at_most``, at most) ``threshold``; where either is NaN it is passed over.

    Raises ``ValueError`` if an expression names a setting that :class:`CurationConfig` lacks or that is no number, or does
    not have an option for each of its words.
    """

    name: str
    stage: Stage
    value: Expression
    threshold: Expression
    at_most: bool = False

    def __post_init__(self) -> None:
        for node in (*nodes(self.value), *nodes(self.threshold)):
            if isinstance(node, Setting | Choice):
                _check_setting(self.name, node)


def _check_setting(rule: str, node: Setting | Choice) -> None:
    section, _, name = node.path.rpartition(".")
    try:
        model = type(read_setting(_DEFAULTS, section))
        words = get_args(model.model_fields[name].annotation)
        default = read_setting(_DEFAULTS, node.path)
    except (AttributeError, KeyError):
        raise ValueError(f"rule {rule} reads {node.path}, which the configuration does not have") from None
    if isinstance(node, Choice):
        if {word for word, _ in node.options} != set(words):
            raise ValueError(f"rule {rule}: {node.path} is one of {', '.join(map(str, words))}; give each its option")
    elif not isinstance(default, int | float | None):
        raise ValueError(f"rule {rule} reads {node.path}, which is not a number")


# The shortest useful stretch, in seconds: ``min_frames`` at the nominal rate.
_LEAST_S = (setting("window.min_frames") - 1) / setting("video.fps")

RULES: tuple[Rule, ...] = (
    Rule("duplicate", "probe", statistic("duplicate"), constant(0), at_most=True),
    Rule("too_short", "probe", statistic("duration_s"), _LEAST_S),
    Rule("too_few_frames", "probe", statistic("repeated_share"), setting("video.max_repeated_share"), at_most=True),
    Rule("no_face", "census", statistic("face_run_s"), _LEAST_S),
    Rule(
        "second_face",
        "census",
        # The contested share, unless a long enough stretch without a second character can be cut out.
        where(statistic("clear_run_s") < _LEAST_S, statistic("contested_share"), 0),
        setting("character.max_contested_share"),
        at_most=True,
    ),
    Rule("inset", "census", statistic("inset"), setting("inset.max_support"), at_most=True),
    Rule("face_too_small", "census", statistic("face_height_px"), setting("character.min_face_px")),
    Rule(
        "face_too_small_in_window",
        "census",
        statistic("face_height_px") / (HEIGHT / setting("crop.max_upscale")),
        setting("character.min_face_window_share"),
    ),
    Rule(
        "face_too_large",
        "census",
        statistic("face_frame_share"),
        setting("character.max_face_frame_share"),
        at_most=True,
    ),
    Rule("face_lost", "track", statistic("track_run_s"), _LEAST_S),
    Rule("shot_too_short", "track", statistic("shot_run_s"), _LEAST_S),
    Rule("second_face_in_shot", "track", statistic("single_run_s"), _LEAST_S),
    Rule("no_window", "track", statistic("windows"), constant(1)),
    Rule("face_outside", "window", statistic("outside_share"), setting("crop.max_outside_share"), at_most=True),
    Rule("poster", "window", statistic("poster_in_crop"), constant(0), at_most=True),
    Rule("mirror", "window", statistic("mirror_in_crop"), constant(0), at_most=True),
    Rule("frozen", "window", statistic("frozen_share"), setting("quality.max_frozen_share"), at_most=True),
    Rule("blurred", "window", statistic("sharpness"), setting("quality.min_sharpness")),
    Rule("occluded", "window", statistic("occluded_share"), setting("occlusion.max_occluded_share"), at_most=True),
    Rule("identity", "window", statistic("identity_shift_cm"), setting("identity_check.max_shift_cm"), at_most=True),
    Rule(
        "identity_in_shot",
        "window",
        statistic("shot_identity_shift_cm"),
        setting("identity_check.max_shift_cm"),
        at_most=True,
    ),
    Rule("identity_looks", "window", statistic("identity_similarity"), setting("identity_check.min_similarity")),
    Rule("yaw", "window", statistic("yaw_p95_deg"), setting("motion.max_yaw_deg"), at_most=True),
    Rule("pitch_median", "window", abs(statistic("pitch_median_deg")), setting("motion.max_pitch_deg"), at_most=True),
    Rule("pitch", "window", statistic("pitch_p95_deg"), setting("motion.max_pitch_deg"), at_most=True),
    Rule("roll", "window", statistic("roll_p95_deg"), setting("motion.max_roll_deg"), at_most=True),
    Rule("pose", "window", statistic("pose_p95"), POSE_LIMIT, at_most=True),
    Rule("speed", "window", statistic("speed_p95_deg_s"), setting("motion.max_speed_deg_s"), at_most=True),
    Rule("motion", "window", MOTION_RATIO, constant(1)),
    Rule("upscale", "window", statistic("upscale"), setting("crop.max_upscale"), at_most=True),
    Rule("padding", "window", statistic("pad_share"), setting("crop.max_pad_share"), at_most=True),
)


def first_failure(statistics: Mapping[str, float], config: CurationConfig) -> Rejected | None:
    """The first rule, in order of cost, that the statistics break; None when they break none.

    Rules whose statistics are absent or NaN are passed over, so the same call serves after every stage.
    """
    for rule in RULES:
        value = float(evaluate(rule.value, statistics, config))
        threshold = float(evaluate(rule.threshold, statistics, config))
        if isnan(value) or isnan(threshold):
            continue
        if value > threshold if rule.at_most else value < threshold:
            return Rejected(rule.name, value, threshold)
    return None


def rules_as_json() -> list[dict[str, Any]]:
    """The table for a program in another language; expressions as :func:`curation.expressions.as_json` describes."""
    return [
        {
            "name": rule.name,
            "stage": rule.stage,
            "value": as_json(rule.value),
            "threshold": as_json(rule.threshold),
            "at_most": rule.at_most,
        }
        for rule in RULES
    ]
