"""What the table says a setting leaves alone is held to the functions that read the setting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.config import CurationConfig
from curation.crop import CropConfig, choose_window_without
from curation.effects import changes, effect_of, leaves
from curation.expressions import evaluate, settings_in, where
from curation.rules import RULES
from curation.video import VideoConfig, analysis_fps
from curation.window import WindowConfig, candidate_windows
from landmarks.landmarker import Box
from shards.schema import FRAMES

CONFIG = CurationConfig()
SETTINGS = sorted(leaves(CONFIG.model_dump(mode="json")))


def holds(setting: str, statistics: dict[str, float], *configs: CurationConfig) -> bool:
    """Whether a change of the setting may make statistics of the clip stale."""
    only = effect_of(setting).only
    assert only is not None
    return any(evaluate(where(only, 1, 0), statistics, config) == 1 for config in configs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_table_says_what_every_setting_does(setting: str) -> None:
    effect = effect_of(setting)
    assert bool(effect.stale) == (effect.kind == "measurement")
    read_by_rules = any(setting in settings_in(rule.value) | settings_in(rule.threshold) for rule in RULES)
    assert effect.kind == "threshold" if read_by_rules and effect.kind != "measurement" else True
    assert read_by_rules or effect.kind != "threshold"


def test_a_setting_that_the_table_does_not_know_is_no_threshold() -> None:
    with pytest.raises(LookupError, match=r"motion_blur\.max"):
        effect_of("motion_blur.max")


def test_changes_are_the_settings_that_differ() -> None:
    now = CurationConfig.model_validate({"motion": {"max_yaw_deg": 35}, "flow": {"device": "cpu"}})
    assert [(c.setting, c.before, c.now, c.effect.kind) for c in changes(CONFIG, now)] == [
        ("motion.max_yaw_deg", 45.0, 35.0, "threshold"),
        ("flow.device", "auto", "cpu", "nothing"),
    ]


limits = st.sampled_from([0.75, 1.0, 4 / 3, 1.5, 2.0, 4.0])


@given(
    x=st.floats(0.2, 0.8),
    y=st.floats(0.2, 0.8),
    face=st.floats(0.05, 0.8),
    size=st.sampled_from([(176, 144), (640, 360), (1280, 720), (720, 1280), (1920, 1080)]),
    clip=st.sampled_from("abcdef"),
    poster_at=st.one_of(st.none(), st.floats(0, 0.9)),
    old=st.tuples(limits, st.sampled_from([0.0, 0.2, 0.5])),
    new=st.tuples(limits, st.sampled_from([0.0, 0.2, 0.5])),
)
def test_limits_of_the_crop_move_none_but_those_that_the_table_names(
    x: float,
    y: float,
    face: float,
    size: tuple[int, int],
    clip: str,
    poster_at: float | None,
    old: tuple[float, float],
    new: tuple[float, float],
) -> None:
    width, height = size
    tall = face * height
    box = np.array([[x * width - tall * 0.4, y * height - tall / 2, x * width + tall * 0.4, y * height + tall / 2]])
    posters = [] if poster_at is None else [Box(poster_at * width, 0, (poster_at + 0.1) * width, 0.2 * height)]
    crops = [CropConfig(mode="mix", max_upscale=upscale, max_pad_share=pad) for upscale, pad in (old, new)]
    before, after = (choose_window_without(box, tall, (0, 0, width, height), posters, clip, crop) for crop in crops)
    configs = [CurationConfig(crop=crop) for crop in crops]
    statistics = {"upscale": before.upscale, "posters": float(len(posters)), "mirrors": 0.0}
    if before != after:
        named = [change.setting for change in changes(*configs)]
        assert any(holds(setting, statistics, *configs) for setting in named)


def test_a_crop_well_inside_its_limits_is_not_affected() -> None:
    relaxed = CurationConfig.model_validate({"crop": {"max_upscale": 2, "max_pad_share": 0.6}})
    alone = {"posters": 0.0, "mirrors": 0.0, "pad_share": 0.4}
    assert not holds("crop.max_upscale", {**alone, "upscale": 1.3}, CONFIG, relaxed)
    assert holds("crop.max_upscale", {**alone, "upscale": 480 / 360}, CONFIG, relaxed)
    assert holds("crop.max_upscale", {**alone, "upscale": 1.3, "mirrors": 1.0}, CONFIG, relaxed)
    assert not holds("crop.max_pad_share", alone, CONFIG, relaxed)
    assert holds("crop.max_pad_share", {**alone, "posters": 1.0}, CONFIG, relaxed)


@given(st.integers(33, 120), st.sampled_from([12.0, 13.7, 16.0, 25 / 3]))
def test_windows_depend_on_the_stride_only_where_the_table_says_so(frames: int, fps: float) -> None:
    found = np.ones(frames, bool)
    windows = [
        candidate_windows((0, frames), found, WindowConfig(stride=stride), CONFIG.character) for stride in (1, 24, 49)
    ]
    statistics = {"single_run_s": (frames - 1) / fps, "analysis_fps": fps}
    if any(each != windows[0] for each in windows):
        assert holds("window.stride", statistics, CONFIG)
    if frames < FRAMES:
        assert not holds("window.stride", statistics, CONFIG)


@given(st.floats(0.5, 6))
def test_the_highest_rate_matters_to_short_clips_only(duration_s: float) -> None:
    rates = {analysis_fps(duration_s, FRAMES, VideoConfig(max_fps=rate), 0.02) for rate in (12, 14, 16, 24)}
    if len(rates) > 1:
        assert holds("video.max_fps", {"duration_s": duration_s}, CONFIG)
    assert not holds("video.max_fps", {"duration_s": 4.1}, CONFIG)


@pytest.mark.parametrize(
    ("setting", "statistic", "spared", "affected"),
    [
        ("character.min_found_share", "found_share", 1.0, 0.99),
        ("character.max_gap", "found_share", 1.0, 0.99),
        ("character.max_contested_share", "contested_share", 0.0, 0.02),
        ("character.max_contested_run", "contested_share", 0.0, 0.02),
        ("character.second_face_area", "background_faces", 0.0, 1.0),
        ("character.second_face_frame_share", "background_faces", 0.0, 1.0),
    ],
)
def test_a_clip_that_gives_a_setting_nothing_to_decide_is_spared(
    setting: str, statistic: str, spared: float, affected: float
) -> None:
    assert not holds(setting, {statistic: spared}, CONFIG)
    assert not holds(setting, {}, CONFIG)
    assert holds(setting, {statistic: affected}, CONFIG)
