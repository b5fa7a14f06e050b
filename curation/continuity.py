"""Whether a face goes on from frame to frame as one face does: no leap of pose, of expression, of the shape of the head."""

import numpy as np

from faceloom.config import Section
from landmarks.angles import angular_speed_deg_s
from landmarks.record import LandmarkRecord


class ContinuityConfig(Section):
    """What a face cannot do between two analysed frames."""

    max_turn_deg: float = 25.0
    """At 12 fps that is 300 degrees a second; the fastest turns of talking heads are 18."""
    max_expression_ratio: float = 6.0
    """Of the clip's median step of the 51 blendshapes (sum of changes) ..."""
    min_expression_leap: float = 8.0
    """... and this much in all. In a calm clip a blink is 14 times the median step; its sum is 5, and none of talking heads
    exceeds 7.4, so the ratio alone would cut there."""
    max_shape_leap_cm: float = 0.45
    """Mean distance of the head's rigid points in canonical space. Of one head they move by up to 0.34 cm; between two people
    the median is 0.62, and 5 of 6 exceed this: cuts from one to another before the same backdrop."""


def leaps(record: LandmarkRecord, metric: np.ndarray, rigid: np.ndarray, config: ContinuityConfig) -> np.ndarray:
    """Which frames do not continue the one before; bool ``[T]``.

    ``metric[T, 478, 3]`` are the points in canonical space (cm), ``rigid[B]`` those of them that no expression moves.
    Neighbouring frames that show the face are compared, so nothing is said where one of them does not.
    """
    turns = angular_speed_deg_s(record.pose, 1.0)
    # Blendshape 0 is "neutral", which no expression moves.
    steps = np.abs(np.diff(record.blendshapes[:, 1:], axis=0)).sum(axis=1)
    seen = steps[np.isfinite(steps)]
    usual = float(np.median(seen)) if len(seen) else 0.0
    leap = (steps > config.max_expression_ratio * usual) & (steps > config.min_expression_leap)
    shape = np.linalg.norm(np.diff(metric[:, rigid], axis=0), axis=2).mean(axis=1)
    return np.concatenate([[False], (turns > config.max_turn_deg) | leap | (shape > config.max_shape_leap_cm)])
