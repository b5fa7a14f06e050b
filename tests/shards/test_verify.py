import math
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import ustar
from shards.dataset import DatasetRecord, index_path, ledger_path, tar_path
from shards.index import read_index, read_layer_file
from shards.schema import BASE_LAYER
from shards.verify import Problem, verify
from shards.writer import write_layer
from tests.shards.conftest import clip_key, encoded_sample, list_fragments, write_fragment

# Part 0 keeps clips 0 and 2, part 1 keeps clips 3 and 5, part 2 keeps nothing.
TAR, INDEX, LEDGER = "shards/part-00001.base.tar", "shards/part-00001.base.parquet", "ledger/part-00001.parquet"


@contextmanager
def altered(path: Path, change: Callable[[bytearray], None]) -> Iterator[None]:
    original = path.read_bytes()
    content = bytearray(original)
    change(content)
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(original)


def flip(position: int, mask: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[position] ^= mask

    return change


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """A dataset that the test may damage for good."""
    return Path(shutil.copytree(dataset, tmp_path / "dataset"))


def members(tar: Path) -> list[tuple[str, int, int]]:
    """(name, first byte, end) of each member's header, data and padding, as tarfile sees them."""
    with tarfile.open(tar) as archive:
        found = [(info.name, info.offset) for info in archive]
        ends = [offset for _, offset in found[1:]] + [archive.offset]
    return [(name, start, end) for (name, start), end in zip(found, ends, strict=True)]


def test_a_whole_dataset_has_no_problem(dataset: Path) -> None:
    assert verify(dataset) == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_a_member_names_the_member(dataset: Path, data: st.DataObject) -> None:
    name, start, end = data.draw(st.sampled_from(members(dataset / TAR)))
    last_block = end - ustar.BLOCK
    # Headers, the end of the data and the padding are small beside the data: draw each of them as often.
    region = data.draw(st.sampled_from([(start, start + ustar.BLOCK), (start + ustar.BLOCK, end), (last_block, end)]))
    position = data.draw(st.integers(region[0], region[1] - 1))
    with altered(dataset / TAR, flip(position, data.draw(st.integers(1, 255)))):
        problems = verify(dataset)
    assert [(problem.file, problem.member) for problem in problems] == [(TAR, name)]


@pytest.mark.parametrize("position", range(-1024, 0, 93))
def test_a_flipped_byte_after_the_last_member_is_found(dataset: Path, position: int) -> None:
    with altered(dataset / TAR, flip(position, 1)):
        assert [(problem.file, problem.member) for problem in verify(dataset)] == [(TAR, None)]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_an_index_is_found_and_blames_no_tar(dataset: Path, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, (dataset / INDEX).stat().st_size - 1))
    with altered(dataset / INDEX, flip(position, data.draw(st.integers(1, 255)))):
        assert [problem.file for problem in verify(dataset)] == [INDEX]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_a_ledger_fragment_is_found(dataset: Path, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, (dataset / LEDGER).stat().st_size - 1))
    with altered(dataset / LEDGER, flip(position, data.draw(st.integers(1, 255)))):
        files = {problem.file for problem in verify(dataset)}
    assert LEDGER in files
    assert files <= {LEDGER, TAR}


@pytest.mark.parametrize(
    "content", [clip_key(3).encode(), np.float64(math.sin(1)).tobytes()], ids=["clip_id", "statistic"]
)
def test_a_flipped_byte_in_a_column_of_an_unfinished_run_is_found(copy: Path, content: bytes) -> None:
    _resave(copy, complete=False, shards=(), ledger=())
    # The first occurrence is in the pages; the footer repeats some values as statistics.
    position = (copy / LEDGER).read_bytes().index(content)
    with altered(copy / LEDGER, flip(position, 1)):
        problems = verify(copy)
    assert {problem.file for problem in problems} == {"dataset.json", LEDGER}


def test_a_flipped_byte_of_the_record_is_found(dataset: Path) -> None:
    with altered(dataset / "dataset.json", flip(200, 1)):
        assert [problem.file for problem in verify(dataset)] == ["dataset.json"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_tar_cut_short_names_the_first_member_that_is_cut(dataset: Path, data: st.DataObject) -> None:
    regions = members(dataset / TAR)
    name, start, _ = data.draw(st.sampled_from(regions))
    entry = next(entry for entry in read_index(dataset / INDEX).entries if entry.member == name)
    length = data.draw(st.integers(start, entry.offset + entry.nbytes - 1))
    with altered(dataset / TAR, lambda content: content.__delitem__(slice(length, None))):
        problems = verify(dataset)
    assert (problems[0].file, problems[0].member) == (TAR, name)
    assert "cut short" in problems[0].message
    assert all(problem.member in (None, name) for problem in problems)


@pytest.mark.parametrize("lost", [1, 512, 1024])
def test_a_tar_without_its_end_is_found(dataset: Path, lost: int) -> None:
    with altered(dataset / TAR, lambda content: content.__delitem__(slice(-lost, None))):
        assert {problem.file for problem in verify(dataset)} == {TAR}


def test_bytes_appended_to_a_tar_are_found(dataset: Path) -> None:
    with altered(dataset / TAR, lambda content: content.extend(b"\0")):
        assert [problem.file for problem in verify(dataset)] == [TAR]


@pytest.mark.parametrize("file", [TAR, INDEX, LEDGER, "dataset.json"])
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    problems = verify(copy)
    assert [problem.file for problem in problems] == [file]
    assert problems[0].member is None


@pytest.mark.parametrize("file", [TAR, INDEX, LEDGER, "dataset.json"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"not what it was"])
def test_a_replaced_file_is_named(copy: Path, file: str, content: bytes) -> None:
    (copy / file).write_bytes(content)
    assert file in {problem.file for problem in verify(copy)}


@pytest.mark.parametrize("file", [TAR, INDEX, LEDGER, "dataset.json"])
def test_a_folder_in_the_place_of_a_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    (copy / file).mkdir()
    assert file in {problem.file for problem in verify(copy)}


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    (problem,) = verify(tmp_path / "nothing")
    assert problem.file == "dataset.json"


def test_missing_folders_are_reported_file_by_file(copy: Path) -> None:
    shutil.rmtree(copy / "shards")
    shutil.rmtree(copy / "ledger")
    files = {problem.file for problem in verify(copy)}
    assert {TAR, INDEX, LEDGER} <= files


def test_damage_to_tar_and_index_is_reported_for_both(dataset: Path) -> None:
    with altered(dataset / TAR, flip(3000, 1)), altered(dataset / INDEX, flip(100, 1)):
        assert {problem.file for problem in verify(dataset)} == {TAR, INDEX}


def test_two_damaged_members_are_both_named(dataset: Path) -> None:
    first, second = members(dataset / TAR)[2], members(dataset / TAR)[7]
    with (
        altered(dataset / TAR, flip(first[1] + 600, 1)),
        altered(dataset / TAR, flip(second[1] + 600, 1)),
    ):
        assert [problem.member for problem in verify(dataset)] == [first[0], second[0]]


@pytest.mark.parametrize(
    "name", ["shards/part-00003.base.tar", "shards/part-00001.latents.tar", "ledger/part-00003.parquet", "ledger/notes"]
)
def test_an_unexpected_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")
    assert [problem.file for problem in verify(copy)] == [name]


@pytest.mark.parametrize("folder", [".", "shards", "ledger"])
def test_a_leftover_of_an_interrupted_write_is_named(copy: Path, folder: str) -> None:
    (copy / folder / ".file.0badcafe.faceloom-tmp").write_bytes(b"")
    (problem,) = verify(copy)
    assert problem.file.endswith(".file.0badcafe.faceloom-tmp")
    assert "interrupted" in problem.message


def test_other_files_beside_the_record_are_nobodys_business(copy: Path) -> None:
    (copy / "audit.html").write_bytes(b"")
    assert verify(copy) == []


def test_a_shard_in_another_order_than_the_ledger_is_found(copy: Path) -> None:
    write_fragment(copy, 1, [(clip_key(5), "kept"), (clip_key(4), "rejected"), (clip_key(3), "kept")])
    list_fragments(copy)
    (problem,) = verify(copy)
    assert (problem.file, problem.message) == (TAR, "its samples are not in the order of the ledger")


def test_a_clip_that_only_the_ledger_keeps_is_named(copy: Path) -> None:
    write_fragment(copy, 1, [(clip_key(3), "kept"), (clip_key(4), "kept"), (clip_key(5), "kept")])
    list_fragments(copy)
    (problem,) = verify(copy)
    assert problem.file == TAR
    assert f"lacks {clip_key(4)}" in problem.message


def test_a_clip_that_the_ledger_rejected_is_named(copy: Path) -> None:
    write_fragment(copy, 1, [(clip_key(3), "kept"), (clip_key(4), "rejected"), (clip_key(5), "failed")])
    list_fragments(copy)
    (problem,) = verify(copy)
    assert problem.file == TAR
    assert f"holds {clip_key(5)} unasked" in problem.message


def test_a_fragment_with_a_row_too_few_is_found(copy: Path) -> None:
    write_fragment(copy, 1, [(clip_key(3), "kept"), (clip_key(5), "kept")])
    list_fragments(copy)
    (problem,) = verify(copy)
    assert problem.file == LEDGER
    assert "its block has 3" in problem.message


def test_a_fragment_that_states_other_rows_than_it_holds_is_found(copy: Path) -> None:
    path = ledger_path(copy, 1)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"rows": "4"}), path)
    list_fragments(copy)
    (problem,) = verify(copy)
    assert (problem.file, problem.message) == (LEDGER, "holds 3 rows, states 4")


def test_shard_positions_that_do_not_count_up_are_found(copy: Path) -> None:
    path = ledger_path(copy, 1)
    table = pq.read_table(path)
    column = table.schema.get_field_index("shard_sample")
    pq.write_table(table.set_column(column, table.field(column), pa.array([1, None, 0], pa.int32())), path)
    list_fragments(copy)
    (problem,) = verify(copy)
    assert problem.file == LEDGER
    assert "shard_sample" in problem.message


def test_a_fragment_with_a_column_of_another_type_is_found(copy: Path) -> None:
    path = ledger_path(copy, 1)
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "clip_id", table["clip_id"].cast(pa.binary())), path)
    list_fragments(copy)
    (problem,) = verify(copy)
    assert problem.file == LEDGER
    assert "clip_id" in problem.message


def test_a_rewritten_shard_does_not_pass_for_the_listed_one(copy: Path) -> None:
    write_layer(copy, 1, BASE_LAYER, map(encoded_sample, [clip_key(3), clip_key(6)]))
    assert {TAR, INDEX} == {problem.file for problem in verify(copy)}


def _resave(root: Path, **changes: object) -> None:
    DatasetRecord.load(root).model_copy(update=changes).save(root)


def test_a_record_that_does_not_list_every_part_is_found(copy: Path) -> None:
    _resave(copy, shards=DatasetRecord.load(copy).shards[1:])
    problems = verify(copy)
    assert problems[0] == Problem("dataset.json", None, "does not list part-00000.base")
    assert {problem.file for problem in problems[1:]} == {
        "shards/part-00000.base.tar",
        "shards/part-00000.base.parquet",
    }


def test_a_record_that_lists_a_part_twice_is_found(copy: Path) -> None:
    _resave(copy, shards=DatasetRecord.load(copy).shards[:1] * 2 + DatasetRecord.load(copy).shards[1:])
    assert Problem("dataset.json", None, "lists part-00000.base 2 times") in verify(copy)


def test_an_unfinished_run_is_checked_as_far_as_it_is_committed(copy: Path) -> None:
    _resave(copy, complete=False, shards=(), ledger=())
    ledger_path(copy, 2).unlink()
    name, start, _ = members(copy / TAR)[4]
    with altered(copy / TAR, flip(start + 520, 4)):
        problems = verify(copy)
    assert [(problem.file, problem.member) for problem in problems] == [
        ("dataset.json", None),
        (TAR, name),
        ("ledger/part-00002.parquet", None),
        ("shards/part-00002.base.parquet", None),
        ("shards/part-00002.base.tar", None),
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_of_an_index_stops_the_check_of_an_unfinished_run(dataset: Path, data: st.DataObject) -> None:
    record = (dataset / "dataset.json").read_bytes()
    position = data.draw(st.integers(0, (dataset / INDEX).stat().st_size - 1))
    _resave(dataset, complete=False, shards=(), ledger=())
    try:
        with altered(dataset / INDEX, flip(position, data.draw(st.integers(1, 255)))):
            assert verify(dataset)[0].file == "dataset.json"
    finally:
        (dataset / "dataset.json").write_bytes(record)


def test_a_field_that_contradicts_the_schema_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, values = encoded_sample(clip_key(3))
    pose = values["pose.npy"].replace(b"'<f4'", b"'>f4'")
    # A faulty writer is the only way such a field can get into a shard with matching digests.
    monkeypatch.setattr("shards.writer._check_sample", lambda fields, *_: {field.name: field.shape for field in fields})
    layer = write_layer(copy, 1, BASE_LAYER, [(key, values | {"pose.npy": pose}), encoded_sample(clip_key(5))])
    shards = DatasetRecord.load(copy).shards
    _resave(copy, shards=(shards[0], layer, shards[2]))
    (problem,) = verify(copy)
    assert (problem.file, problem.member) == (TAR, f"{key}.pose.npy")
    assert "float32" in problem.message


def test_a_dataset_without_an_optional_field_is_whole(copy: Path) -> None:
    samples = [encoded_sample(clip_key(number)) for number in (3, 5)]
    for _, values in samples:
        del values["face_tokens.npy"]
    layer = write_layer(copy, 1, BASE_LAYER, samples)
    shards = DatasetRecord.load(copy).shards
    _resave(copy, shards=(shards[0], layer, shards[2]))
    assert verify(copy) == []


def test_a_problem_reads_as_one_line(dataset: Path) -> None:
    assert str(Problem(TAR, "a.pose.npy", "altered")) == f"{TAR}: a.pose.npy: altered"
    assert str(Problem(LEDGER, None, "missing")) == f"{LEDGER}: missing"


def test_paths_of_the_layout(tmp_path: Path) -> None:
    assert tar_path(tmp_path, 1) == tmp_path / TAR
    assert index_path(tmp_path, 1) == tmp_path / INDEX
    assert ledger_path(tmp_path, 1) == tmp_path / LEDGER


def further_windows(root: Path, rows: list[tuple[int, int | None]]) -> list[Problem]:
    """What is wrong with part 1 if its fragment has these rows, all kept: a clip, and the clip it is a further window of."""
    outcomes = [(clip_key(number), "kept") for number, _ in rows]
    write_layer(root, 1, BASE_LAYER, [encoded_sample(key) for key, _ in outcomes])
    write_fragment(root, 1, outcomes, [None if of is None else clip_key(of) for _, of in rows])
    record = DatasetRecord.load(root)
    files = [read_layer_file(root, part) if part == 1 else file for part, file in enumerate(record.shards)]
    record.model_copy(update={"shards": tuple(files)}).save(root)
    list_fragments(root)
    return verify(root)


def test_further_windows_of_a_clip_are_no_clips_of_the_manifest(copy: Path) -> None:
    assert further_windows(copy, [(3, None), (33, 3), (34, 3), (4, None), (5, None), (55, 5)]) == []


def test_a_clip_of_the_manifest_that_is_missing_is_not_made_up_for_by_a_further_window(copy: Path) -> None:
    (problem,) = further_windows(copy, [(3, None), (33, 3), (5, None)])
    assert (problem.file, problem.message) == (LEDGER, "holds 2 clips of the manifest, its block has 3")


@pytest.mark.parametrize(
    "rows", [[(3, None), (4, None), (33, 3), (5, None)], [(33, 3), (3, None), (4, None), (5, None)]]
)
def test_a_further_window_that_does_not_follow_its_clip_is_named(
    copy: Path, rows: list[tuple[int, int | None]]
) -> None:
    (problem,) = further_windows(copy, rows)
    assert problem.file == LEDGER
    assert clip_key(33) in problem.message
