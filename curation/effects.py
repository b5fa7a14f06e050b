"""What each setting does to a decision that was already made: the table behind every re-decision.

A threshold can be asked again of what the ledger measured. Any other setting decides how something is measured, or which
windows there are: the statistics that it makes stale are then as good as not measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from curation.config import CurationConfig
from curation.expressions import Less, minimum, setting, statistic
from curation.statistics import STATISTICS, Stage
from shards.schema import FRAMES, HEIGHT

Kind = Literal["threshold", "measurement", "sample", "nothing"]
"""``threshold``: read by rules, and by nothing else. ``measurement``: makes statistics stale, whether or not a rule reads it
too. ``sample``: changes what a kept clip becomes, never whether it is kept. ``nothing``: how a run is spread."""


@dataclass(frozen=True)
class Effect:
    """What ``settings`` (dotted names, or a section for all below it) do.

    A measurement makes the statistics ``stale`` of every clip, or ``only`` of those for which the comparison holds under
    the configuration before or after the change.
    """

    settings: tuple[str, ...]
    kind: Kind
    why: str
    stale: frozenset[str] = frozenset()
    only: Less | None = None

    def covers(self, path: str) -> bool:
        """Whether the setting ``path`` is one of them."""
        return any(path == name or path.startswith(f"{name}.") for name in self.settings)


def _measured_from(first: Stage, *names: str) -> frozenset[str]:
    """The statistics of ``first`` and all later stages, and ``names``."""
    stages = get_args(Stage)
    late = stages[stages.index(first) :]
    return frozenset(s.name for s in STATISTICS.values() if s.stage in late).union(STATISTICS[n].name for n in names)


_CROP = _measured_from("flow", "upscale", "pad_share", "poster_in_crop", "mirror_in_crop")
# The crop keeps these out of the picture where its limits allow that.
_KEPT_OUT = statistic("posters") + statistic("mirrors")

EFFECTS: tuple[Effect, ...] = (
    Effect(
        ("run", "storage", "flow.device", "face.device"),
        "nothing",
        "is about where and how a run is carried out; decides no clip",
    ),
    Effect(
        (
            "video.max_repeated_share",
            "character.min_face_px",
            "character.min_face_window_share",
            "character.max_face_frame_share",
            "crop.max_outside_share",
            "quality.max_frozen_share",
            "quality.min_sharpness",
            "identity_check.max_shift_cm",
            "identity_check.min_similarity",
            "inset.max_support",
            "occlusion.max_occluded_share",
            "motion",
        ),
        "threshold",
        "a limit on what was measured",
    ),
    Effect(
        ("video.fps",),
        "measurement",
        "decides which frames of a clip are looked at",
        stale=_measured_from("census", "analysis_fps", "repeated_share"),
    ),
    Effect(
        ("video.max_fps",),
        "measurement",
        "decides which frames of a clip shorter than 49 frames are looked at",
        stale=_measured_from("census", "analysis_fps", "repeated_share"),
        only=statistic("duration_s") < (FRAMES - 1) / setting("video.fps"),
    ),
    Effect(("census",), "measurement", "decides which faces are seen", stale=_measured_from("census")),
    Effect(
        ("bystanders",),
        "measurement",
        "decides which other faces are pictures or mirror images",
        stale=_measured_from("track", "contested_share", "contested_run", "clear_run_s", "posters", "mirrors"),
        only=statistic("background_faces") > 0,
    ),
    Effect(
        ("character.second_face_area", "character.second_face_frame_share"),
        "measurement",
        "decides which other faces contest the picture",
        stale=_measured_from("track", "contested_share", "contested_run", "clear_run_s"),
        only=statistic("background_faces") > 0,
    ),
    Effect(
        ("character.max_contested_share", "character.max_contested_run"),
        "measurement",
        "decides whether a second character is cut out of the clip, and so which windows there are",
        stale=_measured_from("window", "clear_run_s", "single_run_s", "windows"),
        only=statistic("contested_share") > 0,
    ),
    Effect(("shots", "continuity"), "measurement", "decides where a shot ends", stale=_measured_from("track")),
    Effect(
        ("occlusion.max_point_change", "occlusion.max_point_share"),
        "measurement",
        "decides in which frames something stands before the face",
        stale=frozenset({STATISTICS["occluded_share"].name}),
    ),
    Effect(
        ("identity_check.model",),
        "measurement",
        "decides who says whether a face stays one person's",
        stale=frozenset({STATISTICS["identity_similarity"].name}),
    ),
    Effect(
        ("quality.still_change",),
        "measurement",
        "decides which pictures count as repeated",
        stale=frozenset({STATISTICS["frozen_share"].name}),
    ),
    Effect(
        ("character.max_gap",),
        "measurement",
        "decides where a stretch of the followed face ends",
        stale=_measured_from("window", "track_run_s", "shot_run_s", "single_run_s", "windows"),
        only=statistic("found_share") < 1,
    ),
    Effect(
        ("character.min_found_share",),
        "measurement",
        "decides which windows there are where the face was lost",
        stale=_measured_from("window", "windows"),
        only=statistic("found_share") < 1,
    ),
    Effect(
        ("window.min_frames",),
        "measurement",
        "decides which windows there are; as a limit on durations it is asked again",
        stale=_measured_from("window", "windows"),
    ),
    Effect(
        ("window.stride",),
        "measurement",
        "decides which windows there are in stretches of more than 49 frames",
        stale=_measured_from("window", "windows"),
        only=statistic("single_run_s") * statistic("analysis_fps") > FRAMES - 1,
    ),
    Effect(("window.most",), "sample", "decides how many samples a clip becomes, not whether it is kept"),
    Effect(
        ("crop.mode", "crop.portrait_min_share", "crop.portrait_max_share"),
        "measurement",
        "decides how the picture is cropped",
        stale=_CROP,
    ),
    Effect(
        ("crop.max_upscale",),
        "measurement",
        "a limit, and decides how far the crop goes in: clips at the old limit or beyond the new may be cropped otherwise",
        stale=_CROP,
        # Window heights are multiples of 4, so one that the limit has set is less than 4 px above it.
        only=minimum(HEIGHT / statistic("upscale") - HEIGHT / setting("crop.max_upscale") - 4, -1 * _KEPT_OUT) < 0,
    ),
    Effect(
        ("crop.max_pad_share",),
        "measurement",
        "a limit; where a picture or a mirror image of a face is kept out of the crop, also decides where that lies",
        stale=_CROP,
        only=_KEPT_OUT > 0,
    ),
    Effect(
        ("landmarks", "sample_video", "flow", "face"),
        "sample",
        "changes the samples, not which clips are kept: they would have to be made again",
    ),
)


@dataclass(frozen=True)
class Change:
    """A setting that differs between two configurations, and what that does."""

    setting: str
    before: Any
    now: Any
    effect: Effect


def effect_of(path: str) -> Effect:
    """The first row that covers the setting. Raises ``LookupError`` if the table has none."""
    for effect in EFFECTS:
        if effect.covers(path):
            return effect
    raise LookupError(f"curation.effects does not say what the setting {path} does to decisions already made")


def changes(before: CurationConfig, now: CurationConfig) -> tuple[Change, ...]:
    """Every setting that differs, in the order of the configuration."""
    old, new = leaves(before.model_dump(mode="json")), leaves(now.model_dump(mode="json"))
    return tuple(Change(path, old[path], new[path], effect_of(path)) for path in new if old[path] != new[path])


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a configuration by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
