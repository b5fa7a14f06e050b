import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, ManifestSummary
from shards.index import read_layer_file


def test_the_record_survives_the_round_trip_byte_for_byte(dataset: Path, tmp_path: Path) -> None:
    record = DatasetRecord.load(dataset)
    record.save(tmp_path)
    assert DatasetRecord.load(tmp_path) == record
    assert (tmp_path / "dataset.json").read_bytes() == (dataset / "dataset.json").read_bytes()


def test_a_record_that_cannot_be_written_is_told_with_its_file_and_the_remedy(dataset: Path, tmp_path: Path) -> None:
    record = DatasetRecord.load(dataset)
    with pytest.raises(UserError, match=r"cannot write .*gone/dataset\.json: No such file.*run the same command again"):
        record.save(tmp_path / "gone")


def test_the_shard_list_can_be_rebuilt_from_the_indexes(dataset: Path) -> None:
    shards = DatasetRecord.load(dataset).shards
    assert shards == tuple(read_layer_file(dataset, part) for part in range(len(shards)))


def test_the_last_block_holds_the_remaining_rows() -> None:
    manifest = ManifestSummary(sha256="", clips=8, blocks=3, block_clips=3)
    assert [manifest.block_rows(block) for block in range(3)] == [3, 3, 2]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_refused(dataset: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((dataset / "dataset.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json"):
        DatasetRecord.load(tmp_path)


def test_another_schema_version_is_refused_with_both_numbers(dataset: Path, tmp_path: Path) -> None:
    tree = json.loads((dataset / "dataset.json").read_bytes())
    (tmp_path / "dataset.json").write_text(json.dumps(tree | {"schema_version": 7}))
    with pytest.raises(UserError, match=r"version 7.* version 1"):
        DatasetRecord.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"schema_version": 1, "checksum": ""}'])
def test_anything_else_is_refused_by_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"{tmp_path}/dataset\.json.*delete it and run the same `faceloom curate`"):
        DatasetRecord.load(tmp_path)


def test_a_folder_without_a_record_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder"):
        DatasetRecord.load(tmp_path)
