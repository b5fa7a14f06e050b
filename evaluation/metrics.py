"""Every metric: its name, unit, ideal and meaning, said once."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["legacy", "v2", "truth"]


@dataclass(frozen=True)
class Metric:
    """One row of the table. ``ideal`` is what a video has in comparison with itself; ``better`` the way there.

    ``needs`` are files that the user supplies, by their names in ``faceloom/models.toml``. ``published`` is what Table 1 of
    SkyReels-A1's paper has for the release. ``pooled`` metrics are of all videos together.
    """

    name: str
    mode: Mode
    unit: str
    better: Literal["lower", "higher"]
    ideal: float | None
    meaning: str
    needs: tuple[str, ...] = ()
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
    Metric(
        *("facesim_arc", "v2", "-1..1", _HIGHER, 1.0, "mean cosine of ArcFace's embeddings with the reference's"),
        needs=("arcface",),
    ),
    Metric(
        *(
            "facesim_cur",
            "v2",
            "-1..1",
            _HIGHER,
            1.0,
            "mean cosine of CurricularFace's embeddings with the reference's",
        ),
        needs=("curricularface",),
    ),
    Metric(
        *("face_fid", "v2", "", _LOWER, 0.0, "Fréchet distance between the faces of all results and real ones"),
        needs=("inception",),
        pooled=True,
    ),
    Metric("truth_mae", "truth", "levels", _LOWER, 0.0, "mean absolute error of the pixels against the truth"),
    Metric("truth_psnr_db", "truth", "dB", _HIGHER, None, "peak signal-to-noise ratio against the truth"),
    Metric("truth_ssim", "truth", "-1..1", _HIGHER, 1.0, "structural similarity with the truth"),
    Metric("truth_expression", "truth", "0..1", _LOWER, 0.0, "mean L1 of 51 blendshapes against the truth"),
    Metric("truth_pose_deg", "truth", "deg", _LOWER, 0.0, "mean angle between the head's rotation and the truth's"),
    Metric("truth_lip_gap_correlation", "truth", "-1..1", _HIGHER, 1.0, "how far the lips open as the truth's do"),
    Metric(
        *("legacy_facesim_arc", "legacy", "0..1", _HIGHER, 1.0, "FaceSim-Arc of the release's script"),
        needs=("scrfd", "arcface"),
        published=0.7196,
    ),
    Metric(
        *("legacy_facesim_cur", "legacy", "0..1", _HIGHER, 1.0, "FaceSim-Cur of the release's script"),
        needs=("scrfd", "curricularface"),
        published=0.7314,
    ),
    Metric(
        *("legacy_fid", "legacy", "", _LOWER, 0.0, "what the script calls FID: a squared distance of two features"),
        needs=("scrfd", "inception"),
        published=59.69,
    ),
    Metric(
        *("legacy_expression", "legacy", "", _LOWER, 0.0, "five key points against the driver's nearest frame"),
        needs=("scrfd",),
        published=0.0363,
    ),
    Metric(
        *("legacy_pose", "legacy", "", _LOWER, 0.0, "OpenPose's peaks against the driver's nearest frame"),
        needs=("openpose-body",),
        published=0.8245,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
