"""The promises of ``docs/security.md`` that no other test keeps, one or more tests each."""

import ast
import functools
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import faceloom as package
from curation import inspect
from curation.adapters import dfew, panda70m
from curation.adapters.annotations import list_literal
from curation.adapters.entries import Notice
from curation.adapters.table import FOLDER
from curation.config import CurationConfig
from curation.containers import MAX_FRAMES, MAX_PIXELS
from curation.ingest import ingest
from curation.ledger import Decision
from curation.outcome import Failed, Kept
from curation.preflight import prepare
from curation.sources import Clip, write_manifest
from faceloom.errors import UserError
from faceloom.terminal import PlainConsole
from shards import writer
from shards.closed_sql import closed_database
from shards.dataset import DatasetRecord
from shards.index import DamageError, Entry, read_field
from shards.schema import CLIP_ID
from shards.verify import verify
from shards.video import decode_video
from tests.curation.datasets import blank_sample, write_dataset
from tests.curation.ledgers import decided, write_whole_dataset
from tests.videos import numbered, write

ROOT = Path(package.__file__).parents[1]
PACKAGES = ("faceloom", "curation", "landmarks", "shards", "training", "animation", "evaluation")
FRAMES = [numbered(i) for i in range(12)]
FILES = {"video.mp4": b"\0\0\0\x18ftyp", "face.jpg": b"\xff\xd8\xff", "reference.jpg": b"\xff\xd8\xff"}


class Escaping(Clip):
    """A clip of a dataset that somebody made to write where they like."""

    @property
    def clip_id(self) -> str:
        return "../../escaped"


# Nothing is run, and no pickle is loaded.


@functools.cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the project: the file, what is called, and the call."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node)
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_no_code_of_the_project_runs_text_or_loads_a_pickle():
    keywords = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    for file, called, node in calls():
        assert called not in {"eval", "exec", "compile", "pickle.load", "pickle.loads", "os.system", "yaml.load"}, file
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        assert not given.get("shell"), file
        assert not given.get("trust_remote_code"), file
        if called in keywords:
            name, value = keywords[called]
            assert given.get(name) is value, f"{file}: {ast.unparse(node)}"


def test_weights_of_networks_of_others_are_read_from_safetensors_only():
    own = "PortraitAnimationPipeline.from_pretrained"  # which loads its parts by the calls that are looked at here
    for file, called, node in calls():
        if called.endswith(".from_pretrained") and not called.startswith("cls.") and called != own:
            assert {"use_safetensors": True}.items() <= {
                keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords
            }.items(), f"{file}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path('ran').touch()",
        "[__import__('os')]",
        "[" * 100_000,
        "[" + "-" * 100_000 + "1]",
        "[" + "1+" * 60_000 + "1]",
        "[9**9**9]",
        "[" + "(" * 5_000 + ")" * 5_000 + "]",
    ],
)
def test_a_cell_that_spells_a_list_is_never_run_and_cannot_exhaust_its_reader(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no list literal"):
        list_literal(text)
    assert not (tmp_path / "ran").exists()


# Footage is decoded in processes that may die.


def test_neither_listing_footage_nor_planning_a_run_opens_a_video(tmp_path, monkeypatch):
    for module, name in ((av, "open"), (cv2, "VideoCapture")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a video is opened in the user's process"))
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "x.mp4").write_bytes(b"whatever")
    ingest(FOLDER, tmp_path / "footage", tmp_path / "manifest.parquet")
    try:
        prepare(CurationConfig(), tmp_path / "manifest.parquet", tmp_path / "out")
    except UserError as error:
        assert "faceloom models fetch" in str(error)  # noqa: PT017 - without weights the plan ends there


def test_the_one_look_that_listing_panda_takes_is_taken_in_a_process_of_its_own(tmp_path, monkeypatch):
    path = write(tmp_path / "x.mp4", FRAMES)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("a video is opened in the user's process"))
    assert panda70m._height_px(path) == 48
    path.write_text("#EXTM3U\n")
    assert panda70m._height_px(path) is None


# What is written lies where the user said.


@given(st.text(), st.text(), st.floats(0, 1e9), st.none() | st.floats(0, 1e9))
def test_the_id_that_files_are_named_for_is_sixteen_hex_digits_whatever_the_source_is_called(dataset, key, t0_s, t1_s):
    assert CLIP_ID.fullmatch(Clip(dataset, key, key, t0_s, t1_s).clip_id)


@pytest.fixture
def escaping(tmp_path, monkeypatch) -> Path:
    """A dataset whose ledger, index, tar and ``meta.json`` agree that a clip is called ../../escaped."""
    monkeypatch.setattr(writer, "CLIP_ID", re.compile(".*"))
    clip = Escaping("evil", "x", "x.mp4")
    sample = blank_sample(clip) | FILES
    sample["meta.json"]["clip_id"] = clip.clip_id
    root = tmp_path / "a" / "b" / "dataset"
    write_dataset(root, [[Decision(clip, Kept())]], {clip: sample})
    return root


def test_a_contact_sheet_is_never_written_outside_its_folder(escaping, tmp_path, monkeypatch):
    monkeypatch.setattr(inspect, "draw_sheet", lambda _sample: np.zeros((8, 8, 3), np.uint8))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no sample of that id"):
        inspect.write_contact_sheets(escaping, tmp_path / "a" / "b" / "sheets")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_verify_names_a_member_that_would_unpack_elsewhere(escaping):
    problems = [str(problem) for problem in verify(escaping)]
    assert any("../../escaped" in problem and "not a clip id" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file", "../../../etc/passwd"),
        ("file", "/etc/passwd.tar"),
        ("file", "shards/../../x.tar"),
        ("sha256", "../../../tmp/x"),
        ("index_sha256", "a" * 63 + "/"),
    ],
)
def test_a_record_that_lists_files_elsewhere_is_refused(tmp_path, name, value):
    record = write_whole_dataset(tmp_path / "dataset", [[decided(0)]])
    shard = record.shards[0].model_copy(update={name: value})
    record.model_copy(update={"shards": (shard,)}).save(tmp_path / "dataset")
    with pytest.raises(UserError, match=rf"is damaged \(shards.0.{name}"):
        DatasetRecord.load(tmp_path / "dataset")


@pytest.mark.parametrize(("offset", "nbytes"), [(512, 1 << 60), (-1, 8), (512, -1), (1 << 60, 8)])
def test_an_index_cannot_ask_for_more_than_the_tar_has(tmp_path, offset, nbytes):
    tar = tmp_path / "x.tar"
    tar.write_bytes(bytes(2048))
    with pytest.raises(DamageError, match=r"cut short|damaged"):
        read_field(tar, Entry(0, "0" * 16, "pose.npy", offset, nbytes, None, None, 0))


# A dataset of others is data.


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.db'",
        "EXPORT DATABASE 'folder'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access=true",
        "SELECT * FROM secret",
    ],
)
def test_a_closed_database_reaches_no_file_no_extension_and_no_variable(tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    secret = pa.table({"x": [1]})
    with closed_database({"ledger": pa.table({"clip_id": ["a"]})}) as connection:
        assert connection.execute("SELECT clip_id FROM ledger").fetchall() == [("a",)]
        with pytest.raises(duckdb.Error):
            connection.execute(query)
    assert secret.num_rows == 1
    assert not list(tmp_path.iterdir())


def test_the_condition_of_a_repack_reads_no_file(dataset_with_run):
    dataset, run = dataset_with_run
    spy = dataset.parent / "spy.csv"
    spy.write_text("a\n1\n")
    where = f"(SELECT count(*) FROM read_csv('{spy}')) > 0"  # noqa: S608
    assert duckdb.sql(f"SELECT {where}").fetchall() == [(True,)]  # open, it would be read
    code, _, told = run("shards", "repack", dataset, "--out", dataset.parent / "new", "--where", where)
    assert code == 2
    assert "disabled" in told


@pytest.fixture
def dataset_with_run(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> tuple[Path, Callable[..., tuple[int, str, str]]]:
    write_whole_dataset(tmp_path / "dataset", [[decided(0)]])
    return tmp_path / "dataset", run


def test_a_samples_video_is_an_mp4_and_no_list_of_other_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "secret.ts", FRAMES)
    script = b"ffconcat version 1.0\nfile secret.ts\n"
    with av.open(io.BytesIO(script), format="concat") as container:
        assert len(list(container.decode(video=0))) == len(FRAMES)  # as a list, it is a good one
    with pytest.raises(av.FFmpegError):
        decode_video(script)
    assert len(decode_video(write(tmp_path / "x.mp4", FRAMES).read_bytes())) == len(FRAMES)


# Tables of annotations.


def workbook(path: Path, sheet: bytes) -> Path:
    from openpyxl import Workbook

    plain = path.with_name("plain.xlsx")
    Workbook().save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, sheet if name == "xl/worksheets/sheet1.xml" else source.read(name))
    return path


def test_a_workbook_that_unpacks_to_more_than_any_has_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(dfew, "_WORKBOOK_MAX_BYTES", 1 << 20)
    path = workbook(tmp_path / "annotation.xlsx", b"<worksheet>" + b" " * (2 << 20) + b"</worksheet>")
    assert path.stat().st_size < 100_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openpyxl.load_workbook", lambda *_, **__: pytest.fail("it is unpacked"))
        (told,) = dfew._read_workbook(path, {})
    assert isinstance(told, Notice)
    assert "is not used: unpacked it has 2 MiB" in told.text


def test_a_workbook_whose_entities_multiply_is_not_expanded(tmp_path):
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    sheet = (
        f'<!DOCTYPE x [<!ENTITY e0 "0123456789">{entities}]><worksheet '
        'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1" '
        't="inlineStr"><is><t>&e9;</t></is></c></row></sheetData></worksheet>'
    )
    told = list(dfew._read_workbook(workbook(tmp_path / "annotation.xlsx", sheet.encode()), {}))
    assert any(isinstance(each, Notice) and "annotation.xlsx" in each.text for each in told)


# The terminal.


def test_escape_sequences_in_the_name_of_a_source_do_not_reach_the_terminal(tmp_path, dataset_with_run):
    _, run = dataset_with_run
    evil = Clip("set", "\x1b]0;owned\x07\x9b2J\u202e[red]x", "/x.mp4")
    write_whole_dataset(tmp_path / "evil", [[Decision(evil, Failed("probe", "Broken", "\x1b[2J gone"))]])
    code, out, _ = run("status", tmp_path / "evil", "--clips")
    assert code == 0
    assert not re.search(r"[\x07\x1b\x9b\u202e]", out)
    assert r"\x1b" in out
    assert "[red]" in out


def test_the_consoles_own_colours_do_reach_the_terminal():
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system="standard", highlight=False)
    console.print("\x1b[31mevil", style="bold red", markup=False)
    sequences = set(re.findall(r"\x1b\[[\d;]*m", file.getvalue()))
    assert sequences == {"\x1b[1;31m", "\x1b[0m"}
    assert re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()) == "\\x1b[31mevil\n"


def test_footage_is_opened_at_one_place():
    opened = {file for file, called, _ in calls() if called == "av.open"}
    assert opened == {"curation/containers.py", "curation/mp4.py", "shards/video.py"}
    # The other two write, and read the MP4s that the project wrote.


def test_manifests_keep_odd_names_as_they_are(tmp_path):
    clips = [
        Clip("d", key, f"/x/{number}") for number, key in enumerate(["a\nb", "../../x", "\0", "x" * 5000, "<script>"])
    ]
    write_manifest(clips, tmp_path / "m.parquet")
    from curation.sources import open_manifest

    assert [clip for block in open_manifest(tmp_path / "m.parquet").blocks(10) for clip in block] == clips


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs are part of the checkout only")
def test_the_page_on_security_names_tests_that_exist_and_the_limits_that_are():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = re.findall(r"^\| [^|]+ \| [^|]* \| ([^|]+) \|$", page, re.MULTILINE)[1:]
    named = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    assert len(rows) >= 15
    for name in named:
        assert (ROOT / "tests" / name).is_file() or (ROOT / name).is_file(), name
    for stated in (
        f"more than {MAX_PIXELS / 1e6:.0f} megapixels",
        f"more than {MAX_FRAMES // 10**6} million frames",
        f"beyond {dfew._WORKBOOK_MAX_BYTES >> 20} MiB",
    ):
        assert stated in page
