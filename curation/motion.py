"""Head, mouth and expression motion of a window (SkyReels-A1 §5.1: "significant facial expressions and head movements").

Ranges are p95 - p5: a variance halves when the action is short, and max - min is one bad frame.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from curation.expressions import Expression, choice, maximum, minimum, setting, statistic
from curation.statistics import NOISE_MARGIN, STATISTICS
from faceloom.config import Section
from landmarks.angles import angular_speed_deg_s, geodesic_range_deg, head_pose_deg
from landmarks.mouth import expression_activity, jaw_open, lip_gap_cm, mouth_aspect_ratio


class MotionConfig(Section):
    """How much must move, and how extreme it may get.

    The lower limits lie at least ``NOISE_MARGIN`` times above what noise and compression make of a still face
    (``Statistic.noise``); the published limits are on head rotation only (Hallo: 30 degrees). MediaPipe compresses large yaw,
    so 45 measured is near 60 true.
    """

    mode: Literal["any", "all"] = "any"
    """``any``: head or mouth or expression moves. ``all``: the head and (mouth or expression), the paper's literal text."""
    min_head_range_deg: float = Field(8.0, gt=0)
    min_mouth_aspect_range: float = Field(0.18, gt=0)
    min_lip_gap_range_cm: float = Field(0.8, gt=0)
    min_jaw_open_range: float = Field(0.31, gt=0)
    min_expression_activity: float = Field(0.045, gt=0)
    max_yaw_deg: float = 45.0
    max_pitch_deg: float = 30.0
    max_roll_deg: float = 30.0
    max_speed_deg_s: float = 240.0


def _multiple(name: str) -> Expression:
    return statistic(name) / setting(f"motion.min_{name}")


_HEAD = _multiple("head_range_deg")
_FACE = maximum(
    maximum(*map(_multiple, ("mouth_aspect_range", "lip_gap_range_cm", "jaw_open_range"))),
    _multiple("expression_activity"),
)
MOTION_RATIO = choice("motion.mode", any=maximum(_HEAD, _FACE), all=minimum(_HEAD, _FACE))
"""The motion that decides, as a multiple of its threshold: 1 just passes.

``any`` takes the largest of head, mouth and expression; ``all`` the smaller of head and the larger of the others.
"""


def inside_noise(config: MotionConfig) -> list[str]:
    """What to tell a user whose lower limits noise alone may reach: one sentence a setting."""
    notes = []
    for name, threshold in config.model_dump().items():
        moving = STATISTICS.get(name.removeprefix("min_")) if name.startswith("min_") else None
        if moving is not None and moving.noise is not None and threshold < moving.noise:
            notes.append(
                f"motion.{name} is {threshold:g}, and noise alone moves {moving.name} of a still face by {moving.noise:g}: "
                f"still faces will pass; {NOISE_MARGIN:g} times the noise is {NOISE_MARGIN * moving.noise:.3g}"
            )
    return notes


_POSE = MotionConfig()
POSE_LIMIT = maximum(
    *(setting(f"motion.max_{axis}_deg") / getattr(_POSE, f"max_{axis}_deg") for axis in ("yaw", "pitch", "roll"))
)
"""What ``pose_p95`` may reach. Its unit is the default limits, so that it can be asked again under others: where they were
all moved by one factor, this is that factor; else the largest, for each angle has a rule of its own too."""


def motion_statistics(
    points: np.ndarray,
    metric: np.ndarray,
    blendshapes: np.ndarray,
    pose: np.ndarray,
    width: int,
    height: int,
    fps: float,
) -> dict[str, float]:
    """Every motion statistic of one window, by its ledger name.

    ``points[T, 478, 3]`` normalised to the ``width`` × ``height`` source frame, ``metric[T, 478, 3]`` cm in canonical
    space, ``blendshapes[T, 52]``, ``pose[T, 4, 4]``; frames without a face are NaN and left out. ``fps`` is the rate of
    the T frames.
    """
    yaw, pitch, roll = head_pose_deg(pose).T
    # Absolute pitch carries the height of the camera, so movement is read from the difference to the median.
    pitched = pitch - np.nanmedian(pitch)
    aspect = mouth_aspect_ratio(points, width, height)
    statistics = {
        "yaw_range_deg": _range(yaw),
        "pitch_range_deg": _range(pitch),
        "roll_range_deg": _range(roll),
        "head_geodesic_range_deg": geodesic_range_deg(pose),
        "mouth_aspect_range": _range(aspect),
        "lip_gap_range_cm": _range(lip_gap_cm(metric)),
        "jaw_open_range": _range(jaw_open(blendshapes)),
        "expression_activity": expression_activity(blendshapes),
        "yaw_p95_deg": _p95(np.abs(yaw)),
        "pitch_median_deg": float(np.nanmedian(pitch)),
        "pitch_p95_deg": _p95(np.abs(pitched)),
        "roll_p95_deg": _p95(np.abs(roll)),
        "pose_p95": _p95(
            np.max(np.abs([yaw / _POSE.max_yaw_deg, pitched / _POSE.max_pitch_deg, roll / _POSE.max_roll_deg]), axis=0)
        ),
        "speed_p95_deg_s": _p95(angular_speed_deg_s(pose, fps)),
    }
    statistics["head_range_deg"] = max(statistics[f"{axis}_range_deg"] for axis in ("yaw", "pitch", "roll"))
    statistics["motion_score"] = motion_score(statistics)
    return statistics


def motion_score(statistics: Mapping[str, float]) -> float:
    """How much moves, 0 to 3: what windows of one track are ranked by."""
    return (
        min(1.0, statistics["head_range_deg"] / 25)
        + min(1.0, statistics["mouth_aspect_range"] / 0.6)
        + min(1.0, statistics["expression_activity"] / 0.1)
    )


def _range(values: np.ndarray) -> float:
    low, high = np.nanpercentile(values, [5, 95])
    return float(high - low)


def _p95(values: np.ndarray) -> float:
    return float(np.nanpercentile(values, 95))
