from pathlib import Path

import numpy as np
import pytest

from curation.demo import DEMO, demo_clips, unexpected
from curation.rules import RULES
from curation.sources import Clip
from curation.video import TruncatedVideoError, probe
from faceloom import models
from faceloom.errors import UserError
from shards.video import decode_video

FOOTAGE = [name for name in models.files() if name.startswith("demo/") and name.endswith(".mp4")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Clip]:
    if not all(models.locate(name).usable for name in FOOTAGE):
        pytest.skip(f"needs the demo footage: faceloom models fetch {' '.join(FOOTAGE)}")
    return {clip.source_key: clip for clip in demo_clips(tmp_path_factory.mktemp("demo"))}


def frames(clip: Clip) -> np.ndarray:
    return decode_video(Path(clip.path).read_bytes()).astype(int)


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


def test_two_faces_are_the_man_and_his_mirror_image(made):
    left, right = np.split(frames(made["two_faces.mp4"]), 2, axis=2)
    assert np.abs(left - right[:, :, ::-1]).mean() < 2


def test_frozen_lasts_a_whole_window_and_shows_one_picture(made):
    assert probe(made["frozen.mp4"].path).duration_s > 4
    pictures = frames(made["frozen.mp4"])
    assert np.abs(pictures - pictures[0]).max() < 16


def test_too_short_lasts_one_and_a_half_seconds(made):
    assert probe(made["too_short.mp4"].path).duration_s == pytest.approx(1.5, abs=0.05)


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
            "outcome": clip.outcome,
            "rule": clip.because if clip.outcome == "rejected" else None,
            "error": clip.because if clip.outcome == "failed" else None,
        }
        for clip in DEMO
    ]


def test_nothing_is_unexpected_when_all_came_as_planned():
    assert unexpected(as_expected()) == []


def test_surprises_are_told_by_clip():
    rows = as_expected()
    rows[0] |= {"outcome": "rejected", "rule": "roll"}
    del rows[-1]
    assert unexpected(rows) == [
        "talking_man.mp4: expected kept, was rejected roll",
        "cut_short.mp4: expected failed TruncatedVideoError, was not decided",
    ]
