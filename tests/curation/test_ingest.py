"""The manifest of a folder and the account of what is not in it, whatever the dataset."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curation import duplicates as duplicates_module
from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import DATASETS, FOLDER, Dataset
from curation.ingest import Report, ingest
from curation.sources import Clip, open_manifest
from faceloom.errors import UserError
from tests.conftest import Run
from tests.curation.adapters.trees import make

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    folder.mkdir()
    return folder


def put(root: Path, *names: str, content: bytes | None = None) -> None:
    """Files with bytes of their own, or with ``content``."""
    make(root, {name: name.encode() if content is None else content for name in names})


def clips_of(root: Path) -> list[Clip]:
    manifest = root.parent / "m.parquet"
    ingest(FOLDER, root, manifest)
    return [clip for block in open_manifest(manifest).blocks(1000) for clip in block]


def test_equal_bytes_name_the_first_of_them(root: Path) -> None:
    put(root, "a.mp4", "b/copy.mp4", "c.mp4", content=b"same bytes")
    put(root, "d.mp4", content=b"same bytez")
    assert [clip.duplicate_of for clip in clips_of(root)] == [None, "a.mp4", "a.mp4", None]


def test_files_that_begin_alike_are_compared_whole(root: Path) -> None:
    head = bytes(100_000)
    put(root, "a.mp4", content=head + b"1")
    put(root, "b.mp4", content=head + b"2")
    put(root, "c.mp4", content=head + b"1")
    assert [clip.duplicate_of for clip in clips_of(root)] == [None, None, "a.mp4"]


def test_no_byte_is_read_of_files_without_one_of_equal_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "a.mp4", content=b"1")
    put(root, "b.mp4", content=b"22")
    monkeypatch.setattr(duplicates_module, "_head", lambda path: pytest.fail(f"{path} was read"))
    assert len(clips_of(root)) == 2


def test_files_of_equal_size_that_begin_differently_are_not_read_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "a.mp4", content=b"1" * 100_000)
    put(root, "b.mp4", content=b"2" * 100_000)
    monkeypatch.setattr(duplicates_module, "_sha256", lambda path: pytest.fail(f"{path} was read whole"))
    assert len(clips_of(root)) == 2


def test_links_to_a_file_are_its_duplicates(root: Path) -> None:
    put(root, "a.mp4")
    (root / "hard.mp4").hardlink_to(root / "a.mp4")
    (root / "soft.mp4").symlink_to(root / "a.mp4")
    assert [clip.duplicate_of for clip in clips_of(root)] == [None, "a.mp4", "a.mp4"]


def test_empty_files_share_nothing(root: Path) -> None:
    put(root, "a.mp4", "b.mp4", content=b"")
    assert [clip.duplicate_of for clip in clips_of(root)] == [None, None]


@pytest.fixture
def account(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Ingest these entries, as if an adapter had made them."""

    def run(*entries: Entry, **options: object) -> Report:
        monkeypatch.setattr("curation.adapters.folder.entries", lambda root: iter(entries))
        return ingest(FOLDER, root, tmp_path / "m.parquet", **options)  # type: ignore[arg-type]

    return run


def manifest_of(tmp_path: Path) -> list[Clip]:
    return [clip for block in open_manifest(tmp_path / "m.parquet").blocks(100) for clip in block]


def test_spans_of_one_file_are_no_duplicates_of_each_other(account: Callable[..., Report], tmp_path: Path) -> None:
    put(tmp_path, "a", "b", content=b"same")
    spans = [("a", "a", 0.0, 1.0), ("a", "a", 1.0, 2.0), ("b", "b", 1.0, 2.0), ("b", "b", 0.0, 2.0)]
    report = account(*(Clip("set", key, str(tmp_path / path), t0, t1) for key, path, t0, t1 in spans))
    assert report.duplicates == 1
    assert [clip.duplicate_of for clip in manifest_of(tmp_path)] == [None, None, "a", None]


def test_what_is_left_out_is_counted_by_reason_with_the_first_by_name(account: Callable[..., Report]) -> None:
    out = [LeftOut(f"{n}.mp4", "too blue") for n in range(10)] + [LeftOut("x", "torn"), LeftOut("y", "torn")]
    report = account(Clip("set", "a", "/a"), *out, Ignored("", 2), Ignored(".txt"), Ignored(""), Notice("look here"))
    assert [(r.reason, r.count, r.first) for r in report.left_out] == [
        ("too blue", 10, ["0.mp4", "1.mp4", "2.mp4"]),
        ("torn", 2, ["x", "y"]),
    ]
    assert report.ignored == {"": 3, ".txt": 1}
    assert report.notices == ("look here",)


def test_all_that_is_left_out_goes_into_the_file_of_exclusions(account: Callable[..., Report], tmp_path: Path) -> None:
    out = [LeftOut(f'{n}, "é".mp4', "too blue") for n in range(10)]
    account(Clip("set", "a", "/a"), *out, exclusions=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "reason"], *([entry.name, entry.reason] for entry in out)]


def test_names_reach_no_terminal_with_control_characters(account: Callable[..., Report]) -> None:
    report = account(Clip("set", "a", "/a"), LeftOut("\x1b[2J\n\ud800é", "odd"))
    assert report.left_out[0].first == [r"\x1b[2J\n\ud800é"]


def test_another_name_and_licence_may_be_recorded(account: Callable[..., Report], tmp_path: Path) -> None:
    clips = [Clip("set", "a", "/a", licence="CC0"), Clip("set", "b", "/b", licence="MIT")]
    account(*clips, name="mine")
    assert [(clip.dataset, clip.licence) for clip in manifest_of(tmp_path)] == [("mine", "CC0"), ("mine", "MIT")]
    account(*clips, licence="ours")
    assert [(clip.dataset, clip.licence) for clip in manifest_of(tmp_path)] == [("set", "ours"), ("set", "ours")]


def test_nothing_to_list_says_what_was_found_and_what_was_expected(root: Path, tmp_path: Path) -> None:
    put(root, "a.wav", "b.wav")
    (root / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no video below .*found: 2 \.wav.*caf\\xe9\.mp4: its path is not UTF-8.*ends in"
    ):
        ingest(FOLDER, root, tmp_path / "m.parquet", exclusions=tmp_path / "out.csv")
    assert not (tmp_path / "m.parquet").exists()
    assert "not UTF-8" in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize("option", ["out", "exclusions"])
def test_a_file_that_cannot_be_written_is_known_before_the_folder_is_listed(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries(_root: Path) -> Iterator[Entry]:
        pytest.fail("it was listed")
        yield

    monkeypatch.setattr("curation.adapters.folder.entries", entries)
    files = {"out": tmp_path / "m.parquet", "exclusions": tmp_path / "x.csv", option: tmp_path / "gone" / "file"}
    with pytest.raises(UserError, match=rf"gone/file: its folder does not exist; .* with --{option}"):
        ingest(FOLDER, tmp_path, files["out"], exclusions=files["exclusions"])


def test_a_failed_ingestion_leaves_the_old_manifest_and_nothing_else(
    account: Callable[..., Report], tmp_path: Path
) -> None:
    account(Clip("set", "a", "/a"))
    before = (tmp_path / "m.parquet").read_bytes()
    with pytest.raises(UserError, match="listed more than once"):
        account(Clip("set", "b", "/b"), Clip("set", "b", "/c"))
    assert (tmp_path / "m.parquet").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"m.parquet", "footage"}


def test_more_clips_than_a_batch_holds_keep_their_duplicates(account: Callable[..., Report], tmp_path: Path) -> None:
    put(tmp_path, "a", "b", content=b"same")
    many = [Clip("set", f"{n:06}", str(tmp_path / "none")) for n in range(70_000)]
    report = account(Clip("set", "first", str(tmp_path / "a")), *many, Clip("set", "last", str(tmp_path / "b")))
    assert (report.clips, report.duplicates) == (70_002, 1)
    assert [(c.source_key, c.duplicate_of) for c in manifest_of(tmp_path) if c.duplicate_of] == [("last", "first")]


def test_every_dataset_has_a_name_of_its_own_and_an_adapter(tmp_path: Path) -> None:
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)
    for dataset in DATASETS:
        if dataset.name != "demo":
            with pytest.raises(UserError, match="does not exist; give --root"):
                list(dataset.entries(tmp_path / "nowhere"))


def test_the_command_prints_the_account(root: Path, tmp_path: Path, run: Run) -> None:
    put(root, "a.mp4", "b.mp4", content=b"same")
    put(root, "a.txt")
    (root / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    code, out, err = run("ingest", "folder", "--root", root, "--out", tmp_path / "m.parquet")
    assert code == 0
    assert f"{tmp_path}/m.parquet: 2 clips, 1 of them with the bytes of an earlier one" in out
    assert "passed over, no videos by their names: 1 .txt" in out
    assert r"left out: caf\xe9.mp4: its path is not UTF-8" in err


def test_the_command_gives_the_account_to_programs(root: Path, tmp_path: Path, run: Run) -> None:
    put(root, "a.mp4", "b.txt")
    (root / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    code, out, _ = run("ingest", "folder", "--root", root, "--out", tmp_path / "m.parquet", "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["clips"], report["duplicates"], report["ignored"]) == (1, 0, {".txt": 1})
    assert [(reason["count"], reason["first"]) for reason in report["left_out"]] == [(1, [r"caf\xe9.mp4"])]


def test_a_wrong_name_is_answered_with_the_datasets_there_are(run: Run) -> None:
    code, _, err = run("ingest", "hdft", "--root", "x", "--out", "y")
    assert code == 2
    assert "'hdft'" in err
    assert all(dataset.name in err for dataset in DATASETS)


@pytest.mark.skipif(not DOCS.exists(), reason="docs are part of the checkout only")
def test_a_row_of_the_table_and_a_module_make_a_dataset(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is the one that docs/datasets.md shows."""
    example = DOCS.read_text("utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "adapter_of_mine.py").write_text(
        "from pathlib import Path, PurePosixPath\n"
        "from collections.abc import Iterator\n"
        "from curation.adapters.entries import Entry, LeftOut\n"
        "from curation.adapters.table import Dataset\n"
        "from curation.adapters.tree import read_tree\n"
        "from curation.sources import Clip, label_text\n"
        "MINE = Dataset('mine', 'adapter_of_mine:entries', 'Mine.', 'CC0', 'me', 'PERSON_TAKE.mp4')\n" + example
    )
    monkeypatch.syspath_prepend(tmp_path)
    put(root, "ann_1.mp4", "x/bob_2.mp4", "noise.mp4", "notes.txt")
    mine = Dataset("mine", "adapter_of_mine:entries", "Mine.", "CC0", "me", "PERSON_TAKE.mp4")
    report = ingest(mine, root, tmp_path / "m.parquet")
    assert [(c.person_id, c.labels) for c in manifest_of(tmp_path)] == [
        ("ann", '{"take":"1"}'),
        ("bob", '{"take":"2"}'),
    ]
    assert [reason.first for reason in report.left_out] == [["noise.mp4"]]
    assert report.ignored == {".txt": 1}
