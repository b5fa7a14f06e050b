from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.demo import CLOSE_UP, DEMO, demo_clips, held_out_keys, unexpected
from curation.rules import RULES
from curation.sources import Clip
from curation.video import TruncatedVideoError, VideoConfig, analysis_fps, probe, sample_indices
from faceloom import models
from faceloom.errors import UserError
from shards import schema
from shards.video import decode_video

FOOTAGE = [name for name in models.files() if name.startswith("demo/") and name.endswith(".mp4")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Clip]:
    if not all(models.locate(name).usable for name in FOOTAGE):
        pytest.skip(f"needs the demo footage: faceloom models fetch {' '.join(FOOTAGE)}")
    return {clip.source_key: clip for clip in demo_clips(tmp_path_factory.mktemp("demo"))}


def frames(clip: Clip) -> np.ndarray:
    return decode_video(Path(clip.path).read_bytes()).astype(int)


def square_pixels(pictures: np.ndarray) -> np.ndarray:
    """Of the man's pictures, the 192 columns that are shown, where 176 are stored."""
    return np.stack([cv2.resize(picture.astype(np.uint8), (192, 144)) for picture in pictures]).astype(np.int16)


def successive(pictures: np.ndarray) -> np.ndarray:
    """Each picture with the next, at a quarter of the size."""
    small = pictures[:, ::4, ::4]
    return np.stack([small[:-1], small[1:]], axis=1)


def test_every_clip_has_an_id_a_licence_and_a_file(made):
    assert list(made) == [clip.name for clip in DEMO]
    assert len({clip.clip_id for clip in made.values()}) == len(DEMO)
    assert all(Path(clip.path).is_file() and clip.licence != "unknown" for clip in made.values())


def test_making_it_again_gives_the_same_bytes(made, tmp_path):
    for again in demo_clips(tmp_path):
        assert Path(again.path).read_bytes() == Path(made[again.source_key].path).read_bytes(), again.source_key


def test_derived_clips_keep_the_frame_rate(made):
    rate = probe(made["talking_man.mp4"].path).fps
    for name in ("two_faces.mp4", "frozen.mp4", "too_short.mp4"):
        assert probe(made[name].path).fps == pytest.approx(rate, rel=1e-4)


def test_two_faces_are_the_man_at_two_times(made):
    left, right = np.split(frames(made["two_faces.mp4"]), 2, axis=2)
    assert np.abs(left - np.roll(right, -(len(right) // 2), axis=0)).mean() < 2
    assert np.abs(left - right).mean() > 4


def test_frozen_lasts_a_whole_window_and_shows_one_picture(made):
    assert probe(made["frozen.mp4"].path).duration_s > 4
    pictures = frames(made["frozen.mp4"])
    assert np.abs(pictures - pictures[0]).max() < 16


def test_too_short_lasts_one_and_a_half_seconds(made):
    assert probe(made["too_short.mp4"].path).duration_s == pytest.approx(1.5, abs=0.05)


VARIATIONS = [clip.name for clip in DEMO if clip.role != "outcome"]


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_fills_a_window_without_repeating_a_frame(made, name):
    probed = probe(made[name].path)
    fps = analysis_fps(probed.duration_s, schema.FRAMES, VideoConfig(), 0.5 / probed.fps)
    chosen = sample_indices(probed.pts_s, fps)
    assert len(set(chosen.tolist())) == len(chosen) >= schema.FRAMES


@pytest.mark.parametrize(
    ("name", "position", "second", "mirrored"),
    [
        ("man_from_2.0s.mp4", 0, 2.0, False),
        ("man_backwards_from_3.0s.mp4", -1, 1.0, False),
        ("man_mirrored_from_2.2s.mp4", 0, 2.2, True),
        ("man_mirrored_backwards_from_2.0s.mp4", -1, 0.0, True),
    ],
)
def test_a_variation_plays_what_its_name_says(made, name, position, second, mirrored):
    man = made["talking_man.mp4"]
    shown = frames(made[name])[position]
    close_up = square_pixels(frames(man))[:, *CLOSE_UP]
    differences = np.abs(close_up - (shown[:, ::-1] if mirrored else shown)).mean(axis=(1, 2, 3))
    assert (
        abs(np.argmin(differences) - round(second * probe(man.path).fps)) <= 1
    )  # neighbours differ less than encodings
    assert differences.min() < 6


def test_variations_are_slower_than_life(made):
    rate = probe(made["talking_man.mp4"].path).fps
    assert probe(made["man_from_2.0s.mp4"].path).fps == pytest.approx(rate / 2, rel=1e-3)


def test_what_is_held_out_is_no_training_clip_and_both_show_either_side():
    """The man is the same in all: what a model cannot know without looking is the side he turns to."""
    kept = [clip.name for clip in DEMO if clip.outcome == "kept"]
    held_out = held_out_keys()
    assert set(held_out) < set(kept)
    assert len(set(kept)) == len(kept)
    for names in (held_out, [name for name in kept if name not in held_out]):
        mirrored = sum("mirrored" in name for name in names)
        assert 0 < mirrored < len(names)


def test_cut_short_is_recognised_as_such(made):
    with pytest.raises(TruncatedVideoError):
        probe(made["cut_short.mp4"].path)


def test_missing_footage_is_named_with_one_command(tmp_path, monkeypatch):
    monkeypatch.delenv("FACELOOM_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"faceloom models fetch {' '.join(FOOTAGE)}"):
        demo_clips(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_expectations_name_rules_that_exist():
    rules = {rule.name for rule in RULES}
    assert {clip.because for clip in DEMO if clip.outcome == "rejected"} <= rules


def as_expected() -> list[dict[str, object]]:
    return [
        {
            "source_key": clip.name,
            "of_clip": None,
            "outcome": clip.outcome,
            "rule": clip.because if clip.outcome == "rejected" else None,
            "error": clip.because if clip.outcome == "failed" else None,
        }
        for clip in DEMO
    ]


def test_nothing_is_unexpected_when_all_came_as_planned():
    assert unexpected(as_expected()) == []


def test_what_becomes_of_a_further_window_is_no_surprise():
    window = {"source_key": DEMO[0].name, "of_clip": "ab" * 8, "outcome": "failed", "rule": None, "error": "OSError"}
    assert unexpected([*as_expected(), window]) == []


def test_surprises_are_told_by_clip():
    rows = as_expected()
    rows[0] |= {"outcome": "rejected", "rule": "roll"}
    del rows[-1]
    assert unexpected(rows) == [
        "talking_man.mp4: expected kept, was rejected roll",
        f"{DEMO[-1].name}: expected kept, was not decided",
    ]
