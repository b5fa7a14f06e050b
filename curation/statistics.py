"""Every statistic of the ledger: its name, unit and meaning, said once."""

from dataclasses import dataclass
from typing import Literal

NOISE_MARGIN = 3.0
"""How many times its noise a lower limit should ask of a statistic, so that no still face reaches it."""

Stage = Literal["probe", "census", "track", "window", "flow"]


@dataclass(frozen=True)
class Statistic:
    """One column of the ledger, measured in ``stage``."""

    name: str
    unit: str
    stage: Stage
    meaning: str
    noise: float | None = None
    """How far noise alone moves it on a still face: Gaussian of σ = 4, JPEG quality 50 to 90, shifts of 2 px, each frame by
    itself. By bench/noise_floor.py, the 95th percentile over 128 faces of eight talking heads; None where not measured."""


_TABLE = (
    Statistic("duplicate", "0/1", "probe", "an earlier source of the manifest has the same bytes"),
    Statistic("width_px", "px", "probe", "displayed width of the source"),
    Statistic("height_px", "px", "probe", "displayed height of the source"),
    Statistic("source_fps", "1/s", "probe", "median frame rate of the source"),
    Statistic("duration_s", "s", "probe", "from the clip's first to its last frame"),
    Statistic("analysis_fps", "1/s", "probe", "rate at which the clip is sampled"),
    Statistic("repeated_share", "share", "probe", "sampled frames that repeat the one before"),
    Statistic("bars_share", "share", "census", "of the frame that is constant bars of the source"),
    Statistic("inset", "0..1", "census", "how well the weakest side of a window around the face is seen"),
    Statistic(
        "face_run_s",
        "s",
        "census",
        "longest time that the main face can have been in the picture, one missed look bridged",
    ),
    Statistic("contested_share", "share", "census", "census frames with a second face large enough to be a character"),
    Statistic("contested_run", "frames", "census", "longest run of such census frames"),
    Statistic(
        "clear_run_s", "s", "census", "longest time without a second character (all of it when they are tolerated)"
    ),
    Statistic("background_faces", "faces", "census", "most other faces seen in one census frame, of any size"),
    Statistic("posters", "faces", "census", "second faces that are pictures: they do not move"),
    Statistic("mirrors", "faces", "census", "second faces that are mirror images of the main one"),
    Statistic("face_height_px", "px", "census", "median forehead-to-chin height of the main face, source px"),
    Statistic(
        "face_frame_share", "share", "census", "the same over the height of the picture inside the source's bars"
    ),
    Statistic("cuts", "cuts", "track", "shot cuts in the clip"),
    Statistic("dissolves", "dissolves", "track", "stretches in which one picture fades into another"),
    Statistic("leaps", "frames", "track", "frames in which pose, expression or head shape leaps as no face can"),
    Statistic("found_share", "share", "track", "analysed frames in which the main face was followed"),
    Statistic("track_run_s", "s", "track", "longest stretch of the followed face, cuts not counted"),
    Statistic("shot_run_s", "s", "track", "longest stretch of the followed face within one shot"),
    Statistic("single_run_s", "s", "track", "longest stretch within one shot without a second character"),
    Statistic("windows", "windows", "track", "candidate windows"),
    Statistic("outside_share", "share", "window", "frames with more than 15 % of the face's box outside the source"),
    Statistic("poster_in_crop", "share", "window", "most of a picture's head that the crop shows"),
    Statistic("mirror_in_crop", "share", "window", "most of a mirror image's head that the crop shows"),
    Statistic("frozen_share", "share", "window", "pictures that repeat the one before"),
    Statistic("sharpness", "levels²", "window", "median variance of the Laplacian of the face at 112 px"),
    Statistic("occluded_share", "share", "window", "frames with something before the face"),
    Statistic("identity_shift_cm", "cm", "window", "difference of head shape between the window's halves"),
    Statistic(
        "shot_identity_shift_cm", "cm", "window", "the same between the halves of the shot that the window is in"
    ),
    Statistic(
        "identity_similarity", "cosine", "window", "of the most unlike look of the window with the median of its shot"
    ),
    Statistic("yaw_range_deg", "deg", "window", "p95 - p5 of yaw", noise=1.38),
    Statistic("pitch_range_deg", "deg", "window", "p95 - p5 of pitch", noise=1.74),
    Statistic("roll_range_deg", "deg", "window", "p95 - p5 of roll", noise=0.93),
    Statistic("head_range_deg", "deg", "window", "the largest of the three", noise=1.74),
    Statistic("head_geodesic_range_deg", "deg", "window", "twice the p95 angle to the mean rotation", noise=2.55),
    Statistic("mouth_aspect_range", "ratio", "window", "p95 - p5 of the inner lips' aspect ratio", noise=0.045),
    Statistic("lip_gap_range_cm", "cm", "window", "p95 - p5 of the inner lip gap in canonical space", noise=0.19),
    Statistic("jaw_open_range", "0..1", "window", "p95 - p5 of the jawOpen blendshape", noise=0.102),
    Statistic("expression_activity", "0..1", "window", "mean temporal deviation of 51 blendshapes", noise=0.014),
    Statistic("yaw_p95_deg", "deg", "window", "p95 of |yaw|", noise=1.64),
    Statistic("pitch_median_deg", "deg", "window", "median pitch", noise=0.80),
    Statistic("pitch_p95_deg", "deg", "window", "p95 of |pitch - median|", noise=1.05),
    Statistic("roll_p95_deg", "deg", "window", "p95 of |roll|", noise=0.47),
    Statistic(
        "pose_p95",
        "ratio",
        "window",
        "p95 of a frame's largest pose angle over its default limit, pitch - median",
        noise=0.036,
    ),
    Statistic("speed_p95_deg_s", "deg/s", "window", "p95 of the head's angular speed", noise=20.5),
    Statistic("motion_score", "0..3", "window", "head, mouth and expression motion, capped and added", noise=0.26),
    Statistic("upscale", "ratio", "window", "output px per source px"),
    Statistic("pad_share", "share", "window", "of the output's width that is black bars"),
    Statistic("flow_mean_px", "px", "flow", "mean optical flow between the sample's frames"),
    Statistic("flow_p995_px", "px", "flow", "p99.5 of the foreground flow, the scale of the loss mask"),
)
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _TABLE}
