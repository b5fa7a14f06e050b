from pathlib import Path

import pytest

from animation.pairs import read_pairs
from faceloom.errors import UserError


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode())
    return path


def test_paths_are_those_below_the_tables_folder_and_names_are_made_of_both(tmp_path):
    rows = read_pairs(table(tmp_path, "portrait,driving\nfaces/ann.png,talk.mp4\n/abs/bob smith.jpg,talk.mp4\n"), 5)
    assert [(row.name, row.portrait, row.driving, row.seed) for row in rows] == [
        ("ann_talk", tmp_path / "faces/ann.png", tmp_path / "talk.mp4", 5),
        ("bob-smith_talk", Path("/abs/bob smith.jpg"), tmp_path / "talk.mp4", 5),
    ]
    assert rows[0].pair(Path("/out")).out == Path("/out/ann_talk.mp4")


def test_name_and_seed_may_be_given_row_by_row_in_any_order_of_columns(tmp_path):
    text = '\ufeffseed, driving ,name,portrait\r\n7,t.mp4,first,"a, b.png"\r\n,t.mp4,second,c.png\r\n'
    rows = read_pairs(table(tmp_path, text), 0)
    assert [(row.name, row.seed, row.portrait.name) for row in rows] == [
        ("first", 7, "a, b.png"),
        ("second", 0, "c.png"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns of an empty file; it must have portrait and driving"),
        ("portrait,driving\n", "lists no pair"),
        ("portrait,video\na,b\n", "has the columns portrait, video; it must have"),
        ("portrait,driving,extra\na,b,c\n", "it must have portrait and driving, and may have name and seed"),
        ("portrait,driving\na.png\n", "line 2: it has not 2 cells"),
        ("portrait,driving\na, b.png,t.mp4\n", "line 2: it has not 2 cells; put paths with commas between quotes"),
        ("portrait,driving\n,t.mp4\n", "line 2: a portrait and a driving video are needed"),
        ("portrait,driving,name\na,b,../x\n", "line 2: the name '../x' is to name a file"),
        ("portrait,driving,name\na,b,.x\n", "line 2: the name '.x' is to name a file"),
        ("portrait,driving\nA.png,t.mp4\na.jpg,t.mov\n", "line 3: the name a_t is that of line 2, too"),
        ("portrait,driving,seed\na,b,-1\n", "line 2: the seed '-1' is no whole number"),
        ('portrait,driving\n"a,b\n', "is no CSV table in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_pairs(table(tmp_path, text), 0)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.csv: No such file.*--batch"):
        read_pairs(tmp_path / "absent.csv", 0)
