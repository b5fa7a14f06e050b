import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.adapters.table import PANDA70M
from faceloom.errors import UserError
from tests import videos
from tests.curation.adapters.trees import Listed, listed, make

COLUMNS = ("videoID", "url", "timestamp", "caption", "matching_score", "desirable_filtering", "shot_boundary_detection")


def url(video: str) -> str:
    return f"https://www.youtube.com/watch?v={video}"


def row(video: str, clips: int, **changes: object) -> dict[str, object]:
    """A row of the CSV file: ``clips`` desirable clips of one shot each."""
    spans = [[f"0:00:{10 * i:02}.000", f"0:00:{10 * i + 9:02}.567"] for i in range(clips)]
    return {
        "videoID": video,
        "url": url(video),
        "timestamp": spans,
        "caption": [f"A man, who says 'no' {i}" for i in range(clips)],
        "matching_score": [0.5] * clips,
        "desirable_filtering": ["desirable"] * clips,
        "shot_boundary_detection": [[["0:00:00.000", "0:00:09.567"]]] * clips,
        **changes,
    }


def table(*rows: dict[str, object], columns: tuple[str, ...] = COLUMNS) -> dict[str, str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([str(cells[column]) for column in columns] for cells in rows)
    return {"train.csv": text.getvalue()}


def file(video: int, clip: int) -> str:
    return f"{video // 100:05}/{video:07}_{clip:05}.mp4"


def list_panda(root: Path) -> Listed:
    return listed(PANDA70M.entries(root))


def test_clips_are_matched_to_rows_by_their_numbers(tmp_path: Path) -> None:
    rows = [row(f"v{n}", 2) for n in range(103)]
    make(tmp_path, [file(0, 0), file(0, 1), file(102, 1)])
    listing = list_panda(make(tmp_path, table(*rows)))
    assert listing.keys == ["0000000_00000", "0000000_00001", "0000102_00001"]
    clip = listing.clips[2]
    assert (clip.dataset, clip.path, clip.t0_s, clip.t1_s) == ("panda70m", str(tmp_path / file(102, 1)), 0.0, None)
    assert (clip.person_id, clip.single_shot) == (None, True)
    assert "non-commercial" in clip.licence
    assert json.loads(clip.labels or "") == {
        "youtube": "v102",
        "span": ["0:00:10.000", "0:00:19.567"],
        "caption": "A man, who says 'no' 1",
        "matching_score": 0.5,
    }
    assert listing.left_out["train.csv:104 v102 clip 0"] == "a clip without a file on disk"
    assert list(listing.left_out.values()).count("a row without a file on disk") == 101


def test_only_desirable_clips_of_one_shot_are_listed(tmp_path: Path) -> None:
    one, two = [["0:00:00.000", "0:00:09.000"]], [["0:00:00.000", "0:00:04.000"], ["0:00:04.000", "0:00:09.000"]]
    filtered = ["desirable", "3_screen_in_screen", "desirable", "desirable", "<script>"]
    rows = [row("v", 5, desirable_filtering=filtered, shot_boundary_detection=[one, one, two, [], one])]
    make(tmp_path, [file(0, clip) for clip in range(5)])
    listing = list_panda(make(tmp_path, table(*rows)))
    assert listing.keys == ["0000000_00000"]
    assert listing.left_out == {
        file(0, 1): "desirable_filtering: 3_screen_in_screen",
        file(0, 2): "shot_boundary_detection: not one shot",
        file(0, 3): "shot_boundary_detection: not one shot",
        file(0, 4): "desirable_filtering: a value that is none of the dataset",
    }


def test_an_older_table_lists_all_clips_and_says_what_it_lacks(tmp_path: Path) -> None:
    make(tmp_path, [file(0, 0)])
    listing = list_panda(make(tmp_path, table(row("v", 1), columns=COLUMNS[:5])))
    assert [clip.single_shot for clip in listing.clips] == [None]
    assert any("lacks desirable_filtering" in notice for notice in listing.notices)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("timestamp", "__import__('os').system('touch hacked')"),
        ("desirable_filtering", "[__import__('os').system('touch hacked')]"),
        ("caption", "['a'.__class__.__mro__, 'b']"),
        ("caption", "['\\ud800', 'b']"),
        *(("caption", text) for text in ("[" * 10_000, "-" * 10_000 + "1", "[1]" * 10_000, "{" * 90 + "1" + "}" * 90)),
        ("matching_score", "[0.5]"),
        ("matching_score", "['0.5', '0.5']"),
        ("timestamp", "[['0:00:00.000'], ['0:00:00.000']]"),
        ("timestamp", "('0:00:00.000', '0:00:01.000')"),
        ("shot_boundary_detection", ""),
    ],
)
def test_a_row_that_cannot_be_parsed_is_named_with_its_files_and_never_run(
    tmp_path: Path, column: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, [file(0, 0), file(0, 1), file(1, 0)])
    listing = list_panda(make(tmp_path, table(row("bad", 2, **{column: cell}), row("good", 1))))
    assert listing.keys == ["0000001_00000"]
    assert set(listing.left_out) == {"train.csv:2 bad", file(0, 0), file(0, 1)}
    assert not (tmp_path / "hacked").exists()


def test_a_row_with_too_many_cells_or_other_bytes_is_named_and_keeps_its_number(tmp_path: Path) -> None:
    (text,) = table(row("v0", 1), row("v1", 1), row("v2", 1)).values()
    lines = text.encode().splitlines(keepends=True)
    lines[1] = lines[1].rstrip() + b",more\r\n"
    lines[2] = lines[2].replace(b"A man", b"A m\xe4n")
    make(tmp_path, {"train.csv": b"".join(lines)})
    listing = list_panda(make(tmp_path, [file(0, 0), file(1, 0), file(2, 0)]))
    assert listing.keys == ["0000002_00000"]
    assert "more or fewer cells" in listing.left_out["train.csv:2"]
    assert "not UTF-8" in listing.left_out["train.csv:3"]
    assert listing.left_out[file(0, 0)] == listing.left_out[file(1, 0)] == "its row of the CSV file cannot be used"


def test_captions_may_hold_line_breaks_and_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    text = "A man.\nAnother line. " + "x" * 200_000
    make(tmp_path, [file(0, 0), file(1, 0)])
    listing = list_panda(make(tmp_path, table(row("v0", 1, caption=[text]), row("v1", 1))))
    assert [json.loads(clip.labels or "")["caption"][:6] for clip in listing.clips] == ["A man.", "A man,"]


def test_files_without_a_row_or_in_other_places_are_named(tmp_path: Path) -> None:
    odd = [file(5, 0), "00000/0000100_00000.mp4", "0000000_00000.mp4", "00000/trailer.mp4", "raw/x.mp4"]
    make(tmp_path, [*odd, file(0, 0), file(0, 7), "00000/0000000_00000.txt", "00000_stats.json"])
    listing = list_panda(make(tmp_path, table(row("v", 1))))
    assert listing.keys == ["0000000_00000"]
    assert listing.left_out == {
        file(5, 0): "the CSV file has no row of its number",
        file(0, 7): "its row of the CSV file has fewer clips",
        "00000/0000100_00000.mp4": "does not lie at SSSSS/SSSSSVV_CCCCC.mp4",
        "0000000_00000.mp4": "does not lie at SSSSS/SSSSSVV_CCCCC.mp4",
        "00000/trailer.mp4": "does not lie at SSSSS/SSSSSVV_CCCCC.mp4",
        "raw/": "a folder that is no shard: five digits",
    }
    assert listing.ignored == {".txt": 1, ".json": 1}


def test_the_table_of_another_download_is_refused(tmp_path: Path) -> None:
    sidecar = file(0, 0).replace(".mp4", ".json")
    make(tmp_path, table(row("theirs", 1)))
    make(tmp_path, {file(0, 0): "", sidecar: json.dumps({"url": url("theirs"), "caption": "x"})})
    assert len(list_panda(tmp_path).clips) == 1
    make(tmp_path, {sidecar: json.dumps({"url": url("ours")})})
    with pytest.raises(
        UserError, match=r"0000000_00000\.json was downloaded from .*ours.*row 0 of train\.csv says .*theirs"
    ):
        list_panda(tmp_path)
    make(tmp_path, {sidecar: "[" * 10_000})
    assert len(list_panda(tmp_path).clips) == 1


@pytest.mark.parametrize("tables", [[], ["a.csv", "b.csv"]])
def test_the_table_has_to_be_the_only_one(tmp_path: Path, tables: list[str]) -> None:
    found = ", ".join(tables) or "none"
    with pytest.raises(UserError, match=rf"has to hold one CSV file.*\(found: {found}\)"):
        list_panda(make(tmp_path, [*tables, file(0, 0)]))


@pytest.mark.parametrize(("height", "low"), [(360, True), (480, False)])
def test_the_low_default_of_the_download_is_noticed(tmp_path: Path, height: int, low: bool) -> None:
    make(tmp_path, table(row("v", 1)) | {file(0, 0): ""})
    videos.write(tmp_path / file(0, 0), [np.zeros((height, 64, 3), np.uint8)] * 2)
    notices = list_panda(tmp_path).notices
    assert [f"is {height} px high" in notice and "download_size: 720" in notice for notice in notices] == [True] * low


CLIP_STATES = st.sampled_from(["desirable", "2_tiny_camera_movement"])


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.lists(CLIP_STATES, min_size=1, max_size=3) | st.sampled_from(["ragged", "unreadable"]), max_size=6
    ),
    on_disk=st.sets(st.tuples(st.sampled_from([0, 1, 2, 5, 99, 100]), st.integers(0, 3))),
    others=st.sets(st.sampled_from(["x.mp4", "00000/a.mp4", "00001/0000000_00000.mp4", "00000/a.txt", "b.json"])),
)
def test_every_clip_of_every_row_and_every_file_is_listed_or_left_out(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str] | str],
    on_disk: set[tuple[int, int]],
    others: set[str],
) -> None:
    root = tmp_path_factory.mktemp("panda")
    lines = []
    for number, states in enumerate(rows):
        clips = len(states) if isinstance(states, list) else 1
        changes: dict[str, object] = {"desirable_filtering": states}
        (text,) = table(row(f"v{number}", clips, **changes)).values()
        header, line = text.splitlines()
        lines.append(line + ",more" if states == "ragged" else line)
    if not rows:
        header = ",".join(COLUMNS)
    make(root, {"train.csv": "\n".join([header, *lines])})
    files = {file(*place) for place in on_disk} | {name for name in others if name.endswith(".mp4")}
    listing = list_panda(make(root, files | others))

    of_clips = {Path(clip.path).relative_to(root).as_posix() for clip in listing.clips}
    files_left_out = {name for name in listing.left_out if name.endswith(".mp4")}
    assert of_clips | files_left_out == files
    assert not of_clips & files_left_out
    assert sum(listing.ignored.values()) == len(others - files)

    wanted, rows_left_out = set(), set()
    for number, states in enumerate(rows):
        where = f"train.csv:{number + 2}"
        here = {clip for video, clip in on_disk if video == number}
        if states == "ragged":
            rows_left_out.add(where)
        elif not here or states == "unreadable":
            rows_left_out.add(f"{where} v{number}")
        else:
            rows_left_out |= {f"{where} v{number} clip {clip}" for clip in set(range(len(states))) - here}
            wanted |= {file(number, clip) for clip in here if clip < len(states) and states[clip] == "desirable"}
    assert of_clips == wanted
    assert {name for name in listing.left_out if name.startswith("train.csv")} == rows_left_out
