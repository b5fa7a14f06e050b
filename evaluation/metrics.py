"""Every metric: its name, unit, ideal and meaning, said once."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["legacy", "v2", "truth"]


@dataclass(frozen=True)
class Metric:
    """One row of the table. ``ideal`` is what a video has in comparison with itself; ``better`` the way there.

    ``published`` is what Table 1 of SkyReels-A1's paper has for the release, where it is the same computation. ``pooled``
    metrics are of all videos together.
    """

    name: str
    mode: Mode
    unit: str
    better: Literal["lower", "higher"]
    ideal: float | None
    meaning: str
    published: float | None = None
    pooled: bool = False


_LOWER: Literal["lower"] = "lower"
_HIGHER: Literal["higher"] = "higher"

_TABLE = (
    Metric("expression", "v2", "0..1", _LOWER, 0.0, "mean L1 of 51 blendshapes, frame by frame, against the driver"),
    Metric("yaw_deg", "v2", "deg", _LOWER, 0.0, "mean |Δyaw| against the driver"),
    Metric("pitch_deg", "v2", "deg", _LOWER, 0.0, "mean |Δpitch| against the driver"),
    Metric("roll_deg", "v2", "deg", _LOWER, 0.0, "mean |Δroll| against the driver"),
    Metric("pose_deg", "v2", "deg", _LOWER, 0.0, "mean angle between the head's rotation and the driver's"),
    Metric("relative_yaw_deg", "v2", "deg", _LOWER, 0.0, "mean |Δyaw| of the turns since the first frame"),
    Metric("relative_pitch_deg", "v2", "deg", _LOWER, 0.0, "mean |Δpitch| of the turns since the first frame"),
    Metric("relative_roll_deg", "v2", "deg", _LOWER, 0.0, "mean |Δroll| of the turns since the first frame"),
    Metric("relative_pose_deg", "v2", "deg", _LOWER, 0.0, "mean angle between the turns since the first frame"),
    Metric("lip_gap_correlation", "v2", "-1..1", _HIGHER, 1.0, "how far the lips open as the driver's do (Pearson)"),
    Metric("flicker", "v2", "levels", _LOWER, None, "change of the face's luma that is no motion"),
    Metric("flicker_excess", "v2", "levels", _LOWER, 0.0, "the same, less that of the driver"),
    Metric("truth_mae", "truth", "levels", _LOWER, 0.0, "mean absolute error of the pixels against the truth"),
    Metric("truth_psnr_db", "truth", "dB", _HIGHER, None, "peak signal-to-noise ratio against the truth"),
    Metric("truth_ssim", "truth", "-1..1", _HIGHER, 1.0, "structural similarity with the truth"),
    Metric("truth_expression", "truth", "0..1", _LOWER, 0.0, "mean L1 of 51 blendshapes against the truth"),
    Metric("truth_pose_deg", "truth", "deg", _LOWER, 0.0, "mean angle between the head's rotation and the truth's"),
    Metric("truth_lip_gap_correlation", "truth", "-1..1", _HIGHER, 1.0, "how far the lips open as the truth's do"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
