"""Which files belong together, and what is said when none do."""

from pathlib import Path

import pytest

from evaluation.pairs import Pair, from_folders, from_table
from faceloom.errors import UserError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    made = tmp_path / "results", tmp_path / "references", tmp_path / "driving"
    for folder in made:
        folder.mkdir()
    for name in ("results/a.mp4", "results/b.mov", "results/notes.txt", "references/a.JPG", "driving/a.webm"):
        (tmp_path / name).touch()
    return made


def test_files_are_matched_by_name_and_what_is_missing_is_left_out(folders: tuple[Path, Path, Path]):
    results, references, driving = folders
    assert from_folders(*folders, None) == [
        Pair("a", results / "a.mp4", references / "a.JPG", driving / "a.webm", None),
        Pair("b", results / "b.mov", None, None, None),
    ]


def test_folders_of_other_names_are_refused(folders: tuple[Path, Path, Path], tmp_path: Path):
    results, references, driving = folders
    with pytest.raises(UserError, match=r"--results: .*references holds no video"):
        from_folders(references, references, driving, None)
    (references / "a.JPG").rename(references / "c.jpg")
    (driving / "a.webm").unlink()
    with pytest.raises(UserError, match="name them alike"):
        from_folders(results, references, driving, None)
    with pytest.raises(UserError, match="--driving: cannot list"):
        from_folders(results, references, tmp_path / "nowhere", None)
    (results / "a.mov").touch()
    with pytest.raises(UserError, match=r"a\.mov and a\.mp4 have one name"):
        from_folders(results, references, driving, None)


def test_a_table_says_what_belongs_together(tmp_path: Path):
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffname,result,reference,driving,truth\none,r/1.mp4,p.png,/d.mp4,\ntwo,r/2.mp4,,d.mp4,t.mp4\n")
    assert from_table(table) == [
        Pair("one", tmp_path / "r/1.mp4", tmp_path / "p.png", Path("/d.mp4"), None),
        Pair("two", tmp_path / "r/2.mp4", None, tmp_path / "d.mp4", tmp_path / "t.mp4"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,result\na,a.mp4\n", "lacks the column driving, reference; it needs name, result, reference, driving$"),
        ("name,result,reference,driving\n", "has no row"),
        ("name,result,reference,driving\na,,x.png,y.mp4\n", "line 2 of .* has no name or no result"),
        ("name,result,reference,driving\na,1.mp4,,\na,2.mp4,,\n", "two rows of the name 'a'"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, text: str, complaint: str):
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=complaint):
        from_table(table)
    with pytest.raises(UserError, match=r"cannot read .*none.csv: No such file or directory; name another table"):
        from_table(tmp_path / "none.csv")
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="no CSV table in UTF-8"):
        from_table(table)
