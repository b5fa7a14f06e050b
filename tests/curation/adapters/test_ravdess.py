import json
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.adapters.table import RAVDESS
from tests.curation.adapters.trees import Listed, listed, make


def list_ravdess(root: Path) -> Listed:
    return listed(RAVDESS.entries(root))


def test_a_take_is_named_after_its_file_and_labelled_by_its_numbers(tmp_path: Path) -> None:
    (clip,) = list_ravdess(make(tmp_path, ["Actor_12/01-02-06-02-01-02-12.mp4"])).clips
    assert (clip.dataset, clip.source_key, clip.person_id) == ("ravdess", "01-02-06-02-01-02-12", "Actor_12")
    assert (clip.path, clip.t0_s, clip.t1_s) == (str(tmp_path / "Actor_12/01-02-06-02-01-02-12.mp4"), 0.0, None)
    assert (clip.licence, clip.single_shot) == ("CC-BY-NC-SA-4.0", True)
    assert json.loads(clip.labels or "") == {
        "channel": "song",
        "emotion": "fearful",
        "intensity": "strong",
        "statement": "kids",
        "repetition": 2,
    }


def test_archives_may_be_unpacked_each_into_a_folder_of_its_own(tmp_path: Path) -> None:
    names = [
        "Video_Speech_Actor_01/Actor_01/01-01-01-01-01-01-01.mp4",
        "Video_Song_Actor_01/Actor_01/01-02-01-01-01-01-01.mp4",
    ]
    listing = list_ravdess(make(tmp_path, names))
    assert sorted(listing.keys) == ["01-01-01-01-01-01-01", "01-02-01-01-01-01-01"]
    assert not listing.left_out


def test_of_a_take_with_and_without_sound_the_one_with_it_is_listed(tmp_path: Path) -> None:
    names = ["01-01-03-01-01-01-05.mp4", "02-01-03-01-01-01-05.mp4", "02-01-03-01-01-02-05.mp4"]
    listing = list_ravdess(make(tmp_path, [f"Actor_05/{name}" for name in names]))
    assert listing.keys == ["01-01-03-01-01-01-05"]
    assert "is on disk too" in listing.left_out[f"Actor_05/{names[1]}"]
    assert "is not on disk; unpack" in listing.left_out[f"Actor_05/{names[2]}"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Actor_01/01-01-01-02-01-01-01.mp4", "no strong neutral"),
        ("Actor_01/01-02-07-01-01-01-01.mp4", "no sung disgust"),
        ("Actor_02/01-01-02-01-01-01-01.mp4", "another actor than its folder"),
        ("Actor_01/03-01-02-01-01-01-01.mp4", "sound only"),
        ("Actor_25/01-01-02-01-01-01-25.mp4", "is not MM-VV-EE-II-SS-RR-AA.mp4"),
        ("Actor_01/01-01-02-01-01-01-01 (1).mp4", "is not MM-VV-EE-II-SS-RR-AA.mp4"),
        ("Actor_01/01-01-02-01-01-01-٠١.mp4", "is not MM-VV-EE-II-SS-RR-AA.mp4"),
        ("Actor_01/01-01-02-01-01-01-01.avi", "is not MM-VV-EE-II-SS-RR-AA.mp4"),
    ],
)
def test_a_surprising_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    listing = list_ravdess(make(tmp_path, [name]))
    assert not listing.clips
    assert reason in listing.left_out[name]


def test_of_two_files_with_one_name_the_first_is_listed(tmp_path: Path) -> None:
    listing = list_ravdess(make(tmp_path, [f"{folder}/Actor_01/01-01-02-01-01-01-01.mp4" for folder in "ab"]))
    assert [clip.path for clip in listing.clips] == [str(tmp_path / "a/Actor_01/01-01-02-01-01-01-01.mp4")]
    assert list(listing.left_out) == ["b/Actor_01/01-01-02-01-01-01-01.mp4"]


def test_takes_that_are_missing_of_an_actor_are_named(tmp_path: Path) -> None:
    """60 spoken takes an actor, 44 sung ones: https://zenodo.org/records/1188976."""
    listing = list_ravdess(make(tmp_path, ["01-01-02-01-01-01-07.mp4", "01-02-02-01-01-01-07.mp4"]))
    assert [re.findall(r"(\w+): (\d+) takes", notice)[0] for notice in listing.notices] == [
        ("speech", "59"),
        ("song", "43"),
    ]
    assert "01-01-01-01-01-01-07.mp4" in listing.notices[0]


def test_a_whole_actor_lacks_nothing(tmp_path: Path) -> None:
    names = []
    for channel, emotion, intensity, statement, repetition in product((1, 2), range(1, 9), (1, 2), (1, 2), (1, 2)):
        if not (emotion == 1 and intensity == 2) and not (channel == 2 and emotion > 6):
            names.append(f"Actor_24/01-{channel:02}-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-24.mp4")
    listing = list_ravdess(make(tmp_path, names))
    assert (len(listing.clips), listing.notices, listing.left_out) == (104, [], {})


numbers = st.tuples(*(st.integers(0, most) for most in (4, 3, 9, 3, 3, 3, 25)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    takes=st.lists(st.tuples(st.sampled_from(["Actor_01", "Actor_02", "x/Actor_01", "."]), numbers), max_size=12),
    others=st.sets(st.sampled_from(["a.wav", "b/c.mp4", "d.txt", "Actor_01/x.mkv"])),
)
def test_every_video_is_one_clip_or_left_out(
    tmp_path_factory: pytest.TempPathFactory, takes: list[tuple[str, tuple[int, ...]]], others: set[str]
) -> None:
    root = tmp_path_factory.mktemp("ravdess")
    names = {Path(folder, "-".join(f"{n:02}" for n in take) + ".mp4").as_posix() for folder, take in takes} | others
    listing = list_ravdess(make(root, names))
    videos = {name for name in names if name.endswith((".mp4", ".mkv"))}
    of_clips = {Path(clip.path).relative_to(root).as_posix() for clip in listing.clips}
    assert of_clips | set(listing.left_out) == videos
    assert not of_clips & set(listing.left_out)
    assert sum(listing.ignored.values()) == len(names) - len(videos)
    assert all(Path(name).name.startswith("01-") for name in of_clips)
