"""Verification of the layers beside the base: their records, tars, indexes, ledgers, and their agreement with the base."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import ustar
from shards.dataset import DatasetRecord
from shards.layers import LayerRecord, layer_ledger_path
from shards.verify import Problem, verify
from tests.shards.conftest import clip_key
from tests.shards.layered import add_latents, list_outcomes, write_outcomes
from tests.shards.test_verify import altered, flip, members

# Part 0 keeps clips 0 and 2, part 1 keeps clips 3 and 5, part 2 keeps nothing; clip 5 could not be encoded.
TAR, INDEX = "shards/part-00000.latents.tar", "shards/part-00000.latents.parquet"
RECORD, LEDGER = "layers/latents.json", "layers/latents/part-00001.parquet"


@pytest.fixture(scope="module")
def layered(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with two layers; a test that alters a file must put it back."""
    root = shutil.copytree(dataset, tmp_path_factory.mktemp("layered") / "dataset")
    add_latents(root, failed=[clip_key(5)])
    return add_latents(root, "latents-fp32")


@pytest.fixture
def copy(layered: Path, tmp_path: Path) -> Path:
    """A dataset that the test may damage for good."""
    return Path(shutil.copytree(layered, tmp_path / "dataset"))


def resave(root: Path, **changes: object) -> None:
    LayerRecord.load(root, "latents", DatasetRecord.load(root)).model_copy(update=changes).save(root)


def test_whole_layers_have_no_problem(layered: Path) -> None:
    assert verify(layered) == []


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_a_member_names_the_member(layered: Path, data: st.DataObject) -> None:
    name, start, end = data.draw(st.sampled_from(members(layered / TAR)))
    region = data.draw(st.sampled_from([(start, start + ustar.BLOCK), (start + ustar.BLOCK, end)]))
    position = data.draw(st.integers(region[0], region[1] - 1))
    with altered(layered / TAR, flip(position, data.draw(st.integers(1, 255)))):
        assert [(problem.file, problem.member) for problem in verify(layered)] == [(TAR, name)]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), file=st.sampled_from([INDEX, LEDGER, RECORD]))
def test_any_flipped_byte_of_the_other_files_is_found(layered: Path, data: st.DataObject, file: str) -> None:
    position = data.draw(st.integers(0, (layered / file).stat().st_size - 1))
    with altered(layered / file, flip(position, data.draw(st.integers(1, 255)))):
        files = {problem.file for problem in verify(layered)}
    assert file in files
    assert files <= {file, "shards/part-00001.latents.tar"}  # the tar that contradicts an altered ledger


@pytest.mark.parametrize("file", [TAR, INDEX, LEDGER])
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    (problem,) = verify(copy)
    assert problem.file == file
    assert "missing" in problem.message


def test_a_layer_of_another_base_is_named_once(copy: Path) -> None:
    DatasetRecord.load(copy).model_copy(update={"licences": ("other",)}).save(copy)
    assert [problem.file for problem in verify(copy)] == [RECORD, "layers/latents-fp32.json"]


def test_a_record_that_does_not_list_a_part_is_found(copy: Path) -> None:
    resave(copy, shards=LayerRecord.load(copy, "latents", DatasetRecord.load(copy)).shards[1:])
    problems = verify(copy)
    assert problems[0] == Problem(RECORD, None, "does not list part-00000.latents")
    assert {problem.file for problem in problems[1:]} == {TAR, INDEX}


def test_a_record_that_lists_no_ledger_is_found(copy: Path) -> None:
    resave(copy, ledger=())
    assert verify(copy) == [Problem(RECORD, None, "lists 0 ledger fragments of 3 blocks")]


def test_an_unfinished_layer_is_checked_as_far_as_it_is_committed(copy: Path) -> None:
    resave(copy, complete=False, shards=(), ledger=())
    (copy / LEDGER).unlink()
    name, start, _ = members(copy / TAR)[1]
    with altered(copy / TAR, flip(start + 600, 4)):
        problems = verify(copy)
    assert [(problem.file, problem.member) for problem in problems] == [
        (RECORD, None),
        (TAR, name),
        (LEDGER, None),
        ("shards/part-00001.latents.parquet", None),
        ("shards/part-00001.latents.tar", None),
    ]
    assert "faceloom encode --layer latents" in problems[0].message


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([(clip_key(3), "encoded")], f"lacks {clip_key(5)}"),
        ([(clip_key(5), "failed"), (clip_key(3), "encoded")], "not in the order"),
        ([(clip_key(3), "encoded"), (clip_key(4), "failed"), (clip_key(5), "failed")], f"holds {clip_key(4)} unasked"),
    ],
    ids=["a clip too few", "another order", "a clip too many"],
)
def test_a_ledger_that_differs_from_the_clips_of_the_base_is_found(
    copy: Path, outcomes: list[tuple[str, str]], message: str
) -> None:
    write_outcomes(copy, "latents", 1, outcomes)
    list_outcomes(copy, "latents")
    (problem,) = verify(copy)
    assert problem.file == LEDGER
    assert message in problem.message


def test_a_tar_that_differs_from_the_layers_ledger_is_found(copy: Path) -> None:
    write_outcomes(copy, "latents", 1, [(clip_key(3), "encoded"), (clip_key(5), "encoded")])
    list_outcomes(copy, "latents")
    (problem,) = verify(copy)
    assert problem.file == "shards/part-00001.latents.tar"
    assert f"lacks {clip_key(5)}" in problem.message


@pytest.mark.parametrize(
    "name",
    [
        "shards/part-00003.latents.tar",
        "shards/part-00001.latents-old.tar",
        "layers/notes",
        "layers/latents/part-00003.parquet",
        "layers/latents-old",
    ],
)
def test_an_unexpected_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")
    assert [problem.file for problem in verify(copy)] == [name]


@pytest.mark.parametrize("folder", ["layers", "layers/latents"])
def test_a_leftover_of_an_interrupted_write_is_named(copy: Path, folder: str) -> None:
    (copy / folder / ".file.0badcafe.faceloom-tmp").write_bytes(b"")
    (problem,) = verify(copy)
    assert problem.file == f"{folder}/.file.0badcafe.faceloom-tmp"


def test_fragments_are_where_the_layout_says(tmp_path: Path) -> None:
    assert layer_ledger_path(tmp_path, "latents", 1) == tmp_path / LEDGER
