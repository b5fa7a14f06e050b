import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.adapters.table import HDTF
from faceloom.errors import UserError
from tests.curation.adapters.trees import Listed, listed, make

# As the repository has them: no header, a byte-order mark, no newline at the end of some, spaces at the ends of lines.
TABLES = {
    "RD_annotion_time.txt": "Radio11.mp4 00:30-01:00 01:30-02:30\nRadio6.mp4 00:00-00:10 00:20-00:40 ",
    "RD_video_url.txt": "Radio11 https://www.youtube.com/watch?v=abc_DEF-123&t=6s\nRadio6 https://x/\nRadio24 https://y/\n",
    "RD_crop_wh.txt": "Radio11_0.mp4 412 599 0 599\nRadio11_1.mp4 400 600 0 600\nRadio6_1.mp4 1 2 3 4\n",
    "RD_crop_ratio.txt": "Radio11_0.mp4 1.2",
    "RD_resolution.txt": "Radio11.mp4 720\nRadio6.mp4 0\n",
    "WDA_annotion_time.txt": "CatherineCortezMasto.mp4  10:00-10:30\n",
    "WDA_video_url.txt": "\ufeffCatherineCortezMasto https://www.youtube.com/watch?v=ccm\n",
}


def tree(root: Path, *videos: str, **changes: str | bytes) -> Path:
    make(root, {f"HDTF_dataset/{name}": text for name, text in (TABLES | changes).items()})
    return make(root, videos)


def list_hdtf(root: Path) -> Listed:
    return listed(HDTF.entries(root))


def spans(listing: Listed) -> dict[tuple[str, float], float | None]:
    return {(clip.source_key, clip.t0_s): clip.t1_s for clip in listing.clips}


def label(listing: Listed, name: str) -> object:
    return [json.loads(clip.labels or "{}").get(name) for clip in listing.clips]


def test_each_span_of_a_whole_video_is_a_clip(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "_videos_raw/RD_Radio11.mp4", "videos/CatherineCortezMasto.mp4"))
    assert spans(listing) == {
        ("RD_Radio11", 30.0): 60.0,
        ("RD_Radio11", 90.0): 150.0,
        ("WDA_CatherineCortezMasto", 600.0): 630.0,
    }
    assert {clip.path for clip in listing.clips if "RD" in clip.source_key} == {
        str(tmp_path / "_videos_raw/RD_Radio11.mp4")
    }
    assert [clip.person_id for clip in listing.clips] == ["Radio", "Radio", "CatherineCortezMasto"]
    assert {(clip.dataset, clip.licence, clip.single_shot) for clip in listing.clips} == {("hdtf", "CC-BY-4.0", False)}


def test_provenance_is_in_the_labels(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "RD_Radio11.mp4", "CatherineCortezMasto.mp4"))
    assert json.loads(listing.clips[0].labels or "") == {
        "subset": "RD",
        "clip": "Radio11_0",
        "youtube": "abc_DEF-123",
        "crop_xwyh": [412, 599, 0, 599],
        "crop_ratio": 1.2,
        "resolution": 720,
    }
    assert json.loads(listing.clips[2].labels or "") == {
        "subset": "WDA",
        "clip": "CatherineCortezMasto_0",
        "youtube": "ccm",
    }


def test_cut_videos_are_listed_whole(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "clips/Radio11_1.mp4", "clips/Radio6_0.mp4"))
    assert spans(listing) == {("RD_Radio11_1", 0.0): None, ("RD_Radio6_0", 0.0): None}


def test_universome_counts_the_clips_that_have_a_crop(tmp_path: Path) -> None:
    """Radio6_0 has none: what the script calls 000 is Radio6_1."""
    listing = list_hdtf(tree(tmp_path, "RD_Radio6_000.mp4", "RD_Radio6_001.mp4", "RD_Radio11_001.mp4"))
    assert sorted(listing.keys) == ["RD_Radio11_1", "RD_Radio6_1"]
    assert sorted(label(listing, "clip")) == ["Radio11_1", "Radio6_1"]  # type: ignore[call-overload]
    assert "fewer with a row in crop_wh" in listing.left_out["RD_Radio6_001.mp4"]


def test_of_a_whole_and_a_cut_video_the_whole_is_listed(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "_videos_raw/RD_Radio11.mp4", "RD_Radio11_000.mp4", "RD_Radio11_001.mp4"))
    assert spans(listing) == {("RD_Radio11", 30.0): 60.0, ("RD_Radio11", 90.0): 150.0}
    assert {name: reason.split(";")[0] for name, reason in listing.left_out.items() if name.endswith(".mp4")} == {
        "RD_Radio11_000.mp4": "cut from a video that is on disk whole",
        "RD_Radio11_001.mp4": "cut from a video that is on disk whole",
    }


def test_rows_without_a_video_and_videos_without_times_are_named(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "Radio11_0.mp4"))
    assert listing.left_out == {
        "HDTF_dataset/RD_annotion_time.txt:1 Radio11_1 01:30-02:30": "a clip whose video is not on disk",
        "HDTF_dataset/RD_annotion_time.txt:2 Radio6_0 00:00-00:10": "a clip whose video is not on disk",
        "HDTF_dataset/RD_annotion_time.txt:2 Radio6_1 00:20-00:40": "a clip whose video is not on disk",
        "HDTF_dataset/RD_video_url.txt:3 Radio24": "a video without time spans",
        "HDTF_dataset/WDA_annotion_time.txt:1 CatherineCortezMasto_0 10:00-10:30": "a clip whose video is not on disk",
    }


def test_tables_that_are_missing_are_named(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "Radio11_0.mp4"))
    assert [notice.partition(": ")[2].partition(";")[0] for notice in listing.notices] == [
        "WDA_crop_wh.txt, WDA_crop_ratio.txt, WDA_resolution.txt",
        "WRA_annotion_time.txt, WRA_video_url.txt, WRA_crop_wh.txt, WRA_crop_ratio.txt, WRA_resolution.txt",
    ]
    with pytest.raises(UserError, match=r"no table of time spans below .*annotion_time"):
        list_hdtf(make(tmp_path / "empty", ["Radio11_0.mp4"]))


def test_a_table_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(UserError, match=r"RD_crop_wh\.txt and backup/RD_crop_wh\.txt; keep the one that is right"):
        list_hdtf(make(tmp_path, ["backup/RD_crop_wh.txt"]))


@pytest.mark.parametrize(
    "span", ["00:30", "1:00:00-1:00:10", "00:30-00:30", "01:00-00:30", "00:61-01:10", "a-b", "٠٠:10-00:20"]
)
def test_a_span_that_cannot_be_read_is_named_and_its_neighbours_keep_their_numbers(tmp_path: Path, span: str) -> None:
    times = f"Radio11.mp4 {span} 01:30-02:30"
    listing = list_hdtf(tree(tmp_path, "Radio11_0.mp4", "Radio11_1.mp4", **{"RD_annotion_time.txt": times}))
    assert listing.keys == ["RD_Radio11_1"]
    assert "not MM:SS-MM:SS" in listing.left_out[f"HDTF_dataset/RD_annotion_time.txt:1 Radio11_0 {span}"]
    assert "cannot be read" in listing.left_out["Radio11_0.mp4"]


def test_a_span_that_a_video_has_twice_is_one_clip(tmp_path: Path) -> None:
    times = "Radio11.mp4 00:30-01:00 00:30-01:00 01:30-02:30"
    listing = list_hdtf(tree(tmp_path, "Radio11.mp4", **{"RD_annotion_time.txt": times}))
    assert spans(listing) == {("RD_Radio11", 30.0): 60.0, ("RD_Radio11", 90.0): 150.0}
    assert "twice" in listing.left_out["HDTF_dataset/RD_annotion_time.txt:1 Radio11_1 00:30-01:00"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", ".."])
def test_a_name_that_is_a_path_is_left_out(tmp_path: Path, name: str) -> None:
    make(tmp_path, ["etc/passwd.mp4", "b.mp4"])
    times = f"{name}.mp4 00:00-00:10\nRadio11.mp4 00:30-01:00\n"
    root = tree(tmp_path / "a" / "root", "Radio11.mp4", "b.mp4", **{"RD_annotion_time.txt": times})
    listing = list_hdtf(root)
    assert [clip.path for clip in listing.clips] == [str(root / "Radio11.mp4")]
    assert "no plain file name" in listing.left_out[f"HDTF_dataset/RD_annotion_time.txt:1 {name}"]


def test_a_line_that_is_not_utf8_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    times = b"Radi\xe9.mp4 00:00-00:10\nRadio11.mp4 00:30-01:00\n"
    listing = list_hdtf(tree(tmp_path, "Radio11.mp4", **{"RD_annotion_time.txt": times}))
    assert listing.keys == ["RD_Radio11"]
    assert "not UTF-8" in listing.left_out["HDTF_dataset/RD_annotion_time.txt:1"]


def test_hostile_cells_of_the_other_tables_are_named_and_do_no_harm(tmp_path: Path) -> None:
    crops = "Radio11_0.mp4 __import__('os').system('x') 1 2 3\nRadio11_1.mp4 400 600 0\nRadio6_0.mp4 -1 2 3 4\n"
    listing = list_hdtf(
        tree(tmp_path, "Radio11.mp4", **{"RD_crop_wh.txt": crops, "RD_resolution.txt": "Radio11.mp4 1e99\n"})
    )
    assert label(listing, "crop_xwyh") == label(listing, "resolution") == [None, None]
    named = {name.split(":")[0] for name, reason in listing.left_out.items() if "not as its table says" in reason}
    assert named == {"HDTF_dataset/RD_crop_wh.txt", "HDTF_dataset/RD_resolution.txt"}


def test_a_name_of_two_subsets_is_told_apart_by_its_folder(tmp_path: Path) -> None:
    times = {f"{subset}_annotion_time.txt": "AnnLee1.mp4 00:00-00:10\n" for subset in ("WDA", "WRA")}
    listing = list_hdtf(tree(tmp_path, "WRA/AnnLee1.mp4", "AnnLee1.mp4", "WDA_AnnLee1_0.mp4", **times))
    assert sorted(listing.keys) == ["WDA_AnnLee1_0", "WRA_AnnLee1"]
    assert "put it below a folder named RD, WDA or WRA" in listing.left_out["AnnLee1.mp4"]


def test_two_files_of_one_clip_are_listed_once(tmp_path: Path) -> None:
    listing = list_hdtf(tree(tmp_path, "Radio11_0.mp4", "RD/Radio11_0.mp4", "RD_Radio11_000.mp4"))
    assert [clip.path for clip in listing.clips] == [str(tmp_path / "RD/Radio11_0.mp4")]
    assert {name for name, reason in listing.left_out.items() if "is the same video or clip" in reason} == {
        "Radio11_0.mp4",
        "RD_Radio11_000.mp4",
    }


NAMES = st.sampled_from(["Ann", "Bob1", "Bob12", "Cy_1", "Cy"])
SPANS = st.sampled_from(["00:00-00:10", "00:10-00:20", "01:00-99:00", "00:00-00:00", "x"])


@settings(max_examples=60)
@given(
    tables=st.dictionaries(
        st.sampled_from(["RD", "WDA"]), st.lists(st.tuples(NAMES, st.lists(SPANS, max_size=3)), max_size=4), min_size=1
    ),
    cropped=st.sets(st.tuples(NAMES, st.integers(0, 2))),
    videos=st.sets(
        st.tuples(
            st.sampled_from(["", "RD/", "x/WDA/"]),
            st.sampled_from(["", "RD_", "WDA_"]),
            NAMES,
            st.sampled_from(["", "_0", "_1", "_2", "_000", "_001", "_7"]),
        ),
        max_size=12,
    ),
)
def test_every_span_and_every_video_is_listed_or_left_out(
    tmp_path_factory: pytest.TempPathFactory,
    tables: dict[str, list[tuple[str, list[str]]]],
    cropped: set[tuple[str, int]],
    videos: set[tuple[str, ...]],
) -> None:
    root = tmp_path_factory.mktemp("hdtf")
    files = {"".join(parts) + ".mp4" for parts in videos}
    make(root, files)
    for subset, rows in tables.items():
        text = "".join(f"{name}.mp4 {' '.join(of_name)}\n" for name, of_name in rows)
        crops = "".join(f"{name}_{i}.mp4 1 2 3 4\n" for name, i in cropped)
        make(root, {f"{subset}_annotion_time.txt": text, f"{subset}_crop_wh.txt": crops})
    listing = list_hdtf(root)
    of_clips = {Path(clip.path).relative_to(root).as_posix() for clip in listing.clips}
    files_left_out = {name for name in listing.left_out if name.endswith(".mp4") and ":" not in name}
    assert of_clips | files_left_out == files
    assert not of_clips & files_left_out

    clips = [json.loads(clip.labels or "") for clip in listing.clips]
    made = {(clip["subset"], clip["clip"]) for clip in clips}
    assert len(made) == len(clips)
    rows_left_out = {" ".join(name.split()[:2]) for name in listing.left_out if "annotion_time.txt:" in name}
    expected = set()
    for subset, rows in tables.items():
        seen: set[str] = set()
        for line, (name, of_name) in enumerate(rows, 1):
            where = f"{subset}_annotion_time.txt:{line}"
            if name in seen or not of_name:
                expected.add(f"{where} {name}")
                continue
            seen.add(name)
            expected |= {f"{where} {name}_{i}" for i in range(len(of_name)) if (subset, f"{name}_{i}") not in made}
            made -= {(subset, f"{name}_{i}") for i in range(len(of_name))}
    assert rows_left_out == expected
    assert not made
