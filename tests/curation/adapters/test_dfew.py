import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from curation.adapters.table import DFEW
from faceloom.errors import UserError
from tests.curation.adapters.trees import Listed, listed, make

VOTES = ("1happy", "2sad", "3neutral", "4angry", "5surprise", "6disgust", "7fear")
EMOTIONS = {number: name[1:] for number, name in enumerate(VOTES, 1)}


def list_dfew(root: Path) -> Listed:
    return listed(DFEW.entries(root))


def split(kind: str, number: int, rows: dict[object, object], spelling: str = "(single-labeled)") -> dict[str, str]:
    text = "\ufeffvideo_name,label\r\n" + "".join(f"{clip},{label}\r\n" for clip, label in rows.items())
    return {f"EmoLabel_DataSplit/{kind}{spelling}/set_{number}.csv": text}


def workbook(root: Path, rows: list[list[object]], header: tuple[str, ...] = (*VOTES, "order", "label")) -> Path:
    book = Workbook()
    assert book.active is not None
    for row in [list(header), *rows]:
        book.active.append(row)
    (root / "Annotation").mkdir(parents=True, exist_ok=True)
    book.save(root / "Annotation" / "annotation.xlsx")
    return root


def originals(*names: str) -> list[str]:
    return [f"Clip/original/{name}.mp4" for name in names]


def labels(listing: Listed) -> dict[str, object]:
    return {clip.source_key: json.loads(clip.labels or "null") for clip in listing.clips}


def test_numbers_with_and_without_zeros_are_one_clip(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1, "00002": 7}) | split("test", 1, {3: 4}))
    listing = list_dfew(make(tmp_path, originals("1", "part_1-2-3/00002", "00003")))
    assert labels(listing) == {
        "00001": {"emotion": "happy"},
        "00002": {"emotion": "fear"},
        "00003": {"emotion": "angry", "test_sets": [1]},
    }
    assert {(clip.dataset, clip.person_id, clip.single_shot) for clip in listing.clips} == {("dfew", None, False)}
    assert "non-commercial" in listing.clips[0].licence
    assert not listing.left_out


@pytest.mark.parametrize("spelling", ["(single-labeled)", "(single_labeled)", ""])
def test_folders_of_splits_are_spelled_in_three_ways(tmp_path: Path, spelling: str) -> None:
    make(tmp_path, split("test", 5, {1: 2}, spelling))
    assert labels(list_dfew(make(tmp_path, originals("1")))) == {"00001": {"emotion": "sad", "test_sets": [5]}}


def test_the_workbook_has_votes_and_the_clips_without_a_single_label(tmp_path: Path) -> None:
    workbook(tmp_path, [[3, 0, 7, 0, 0, 0, 0, 1, 3], [2, 2, 2, 2, 2, 0, 0, "00002", 0]])
    make(tmp_path, split("test", 2, {1: 3}))
    listing = list_dfew(make(tmp_path, originals("1", "2")))
    assert labels(listing) == {
        "00001": {
            "emotion": "neutral",
            "test_sets": [2],
            "votes": {"happy": 3, "sad": 0, "neutral": 7, "angry": 0, "surprise": 0, "disgust": 0, "fear": 0},
        },
        "00002": {"votes": {"happy": 2, "sad": 2, "neutral": 2, "angry": 2, "surprise": 2, "disgust": 0, "fear": 0}},
    }
    assert not any("annotation.xlsx" in notice for notice in listing.notices)


def test_without_the_workbook_clips_without_a_label_are_named(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1}))
    listing = list_dfew(make(tmp_path, originals("1", "2")))
    assert listing.keys == ["00001"]
    assert "no label file has its number" in listing.left_out["Clip/original/2.mp4"]
    assert any("annotation.xlsx is not in" in notice for notice in listing.notices)


def test_a_workbook_of_other_columns_or_bytes_is_named_and_the_splits_are_used(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1}))
    make(tmp_path, originals("1"))
    listing = list_dfew(workbook(tmp_path, [[1, 2]], ("order", "label")))
    assert any("its columns are 'order, label'" in notice for notice in listing.notices)
    assert listing.keys == ["00001"]
    (tmp_path / "Annotation" / "annotation.xlsx").write_bytes(b"not a zip file")
    assert any("cannot be read to its end" in notice for notice in list_dfew(tmp_path).notices)


def test_only_the_small_clips_are_no_dataset(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1}))
    with pytest.raises(UserError, match=r"clips of 224 px and no originals.*unpack the archives of Clip/original"):
        list_dfew(make(tmp_path, ["Clip/clip_224x224/00001/1.jpg"]))


def test_small_clips_beside_the_originals_are_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1}))
    small = ["Clip/clip_224x224/00001/1.jpg", "Clip/clip_224x224_16f/00001/1.jpg", "Clip/clip_224x224_avi/00001.avi"]
    listing = list_dfew(make(tmp_path, [*small, *originals("1"), "Clip/original/notes.txt"]))
    assert listing.keys == ["00001"]
    assert (listing.left_out, listing.ignored) == ({}, {".txt": 1})


def test_no_label_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no label files below .*set_N\.csv"):
        list_dfew(make(tmp_path, originals("1")))


def test_a_csv_of_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    files = {"EmoLabel_DataSplit/train(single-labeled)/set_1.csv": "name,emotion\n1,2\n"}
    with pytest.raises(UserError, match=r"set_1\.csv has no column video_name, label \(its header: 'name,emotion'\)"):
        list_dfew(make(tmp_path, files))


def test_files_of_the_split_that_are_missing_are_named(tmp_path: Path) -> None:
    make(tmp_path, split("train", 1, {1: 1}) | split("test", 3, {1: 1}))
    (notice, _) = list_dfew(make(tmp_path, originals("1"))).notices
    assert "train/set_2.csv" in notice
    assert "test/set_1.csv" in notice
    assert "train/set_1.csv" not in notice
    assert "test/set_3.csv" not in notice


@pytest.mark.parametrize("second", [split("train", 2, {1: 5}), split("test", 1, {1: 1})])
def test_labels_that_contradict_each_other_leave_the_clip_out(tmp_path: Path, second: dict[str, str]) -> None:
    make(tmp_path, split("train", 1, {1: 1, 2: 2}) | second)
    listing = list_dfew(make(tmp_path, originals("1", "2")))
    assert listing.keys == ["00002"]
    assert "contradict" in listing.left_out["Clip/original/1.mp4"]


ROW = st.tuples(st.sampled_from(["1", "2", "00003", "4.mp4", "__import__('os')", "-1", ""]), st.sampled_from("0178x"))


@settings(max_examples=50)
@given(
    videos=st.sets(st.sampled_from([*originals("1", "00001", "x/2", "3", "00009", "one"), "4.mp4", "Clip/1.avi"])),
    rows=st.lists(ROW, max_size=8),
    ragged=st.booleans(),
)
def test_every_video_and_every_row_is_listed_or_left_out(
    tmp_path_factory: pytest.TempPathFactory, videos: set[str], rows: list[tuple[str, str]], ragged: bool
) -> None:
    root = tmp_path_factory.mktemp("dfew")
    sound = {5: 1}  # so that there is a label file to begin with
    (name,) = split("train", 1, sound)
    text = "".join(f"{clip},{label}\n" for clip, label in rows) + ("1\n" if ragged else "")
    make(root, {name: "video_name,label\n5,1\n" + text})
    listing = list_dfew(make(root, videos))

    of_clips = {Path(clip.path).relative_to(root).as_posix() for clip in listing.clips}
    videos_left_out = {entry for entry in listing.left_out if ".csv" not in entry}
    assert of_clips | videos_left_out == videos
    assert not of_clips & videos_left_out

    bad, labels_of = {f"{name}:{3 + len(rows)}"} if ragged else set(), {"00005": {"1"}}
    for line, (clip, label) in enumerate(rows, 3):
        number = clip.removesuffix(".mp4")
        if number.isdigit() and label in "17":
            labels_of.setdefault(number.zfill(5), set()).add(label)
        else:
            bad.add(f"{name}:{line}")
    named = {entry.split()[0]: entry.split()[-1] for entry in listing.left_out if ".csv" in entry}
    assert bad <= set(named)
    on_disk = {Path(video).stem.zfill(5) for video in videos if video.startswith("Clip/original/")}
    assert {number.zfill(5) for where, number in named.items() if where not in bad} == set(labels_of) - on_disk
    assert set(listing.keys) == {number for number, of in labels_of.items() if number in on_disk and len(of) == 1}
