import itertools
import json
import tarfile
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from shards import ustar
from shards.dataset import index_path, tar_path
from shards.index import DamageError, read_field, read_index, read_layer_file
from shards.schema import BASE_LAYER, decode_field
from shards.writer import write_layer
from tests.shards.conftest import clip_key, encoded_sample, sample_values

KEYS = [clip_key(2), clip_key(0), clip_key(1)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("layer")
    write_layer(root, 42, BASE_LAYER, map(encoded_sample, KEYS))
    return root


def test_webdataset_reads_the_tar(written: Path) -> None:
    samples = list(webdataset.WebDataset(str(tar_path(written, 42)), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == KEYS
    for sample in samples:
        for name, value in sample_values(sample["__key__"]).items():
            np.testing.assert_equal(decode_field(name, sample[name]), value)


def test_webdataset_decodes_arrays_and_json_by_itself(written: Path) -> None:
    (sample, *_) = webdataset.WebDataset(str(tar_path(written, 42)), shardshuffle=False).decode()
    np.testing.assert_equal(sample["landmarks.u16.npy"], sample_values(KEYS[0])["landmarks.u16.npy"])
    assert sample["meta.json"]["clip_id"] == KEYS[0]


def test_every_field_can_be_read_through_the_index(written: Path) -> None:
    index = read_index(index_path(written, 42))
    assert index.keys == tuple(KEYS)
    for key, name in itertools.product(KEYS, sample_values(KEYS[0])):
        data = read_field(tar_path(written, 42), index.entry(key, name))
        np.testing.assert_equal(decode_field(name, data), sample_values(key)[name])


def test_the_numbers_of_an_array_are_the_end_of_its_member(written: Path) -> None:
    entry = read_index(index_path(written, 42)).entry(KEYS[1], "flow.npy")
    payload = read_field(tar_path(written, 42), entry)[-2 * 13 * 60 * 90 :]
    np.testing.assert_array_equal(
        np.frombuffer(payload, entry.dtype).reshape(entry.shape), sample_values(KEYS[1])["flow.npy"]
    )


def test_the_index_agrees_with_tarfile(written: Path) -> None:
    rows = pq.read_table(index_path(written, 42)).to_pylist()
    with tarfile.open(tar_path(written, 42)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"{row['key']}.{row['field']}" for row in rows]
        for member, row in zip(members, rows, strict=True):
            assert (member.offset_data, member.size) == (row["offset"], row["nbytes"])
            assert google_crc32c.value(tar.extractfile(member).read()) == row["crc32c"]
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)


def test_member_order_follows_the_schema_not_the_caller(tmp_path: Path, written: Path) -> None:
    shuffled = ((key, dict(reversed(values.items()))) for key, values in map(encoded_sample, KEYS))
    again = write_layer(tmp_path, 42, BASE_LAYER, shuffled)
    assert again == read_layer_file(written, 42)
    for path in (tar_path, index_path):
        assert path(tmp_path, 42).read_bytes() == path(written, 42).read_bytes()


def test_writing_over_an_orphan_gives_the_same_bytes(tmp_path: Path, written: Path) -> None:
    write_layer(tmp_path, 42, BASE_LAYER, map(encoded_sample, [clip_key(9)]))
    assert write_layer(tmp_path, 42, BASE_LAYER, map(encoded_sample, KEYS)) == read_layer_file(written, 42)


def test_no_samples_give_a_tar_that_reads_as_empty(tmp_path: Path) -> None:
    layer = write_layer(tmp_path, 0, BASE_LAYER, [])
    assert (layer.samples, layer.bytes) == (0, 1024)
    with tarfile.open(tar_path(tmp_path, 0)) as tar:
        assert tar.getmembers() == []
    assert read_index(index_path(tmp_path, 0)).keys == ()
    assert list(webdataset.WebDataset(str(tar_path(tmp_path, 0)), shardshuffle=False, empty_check=False)) == []


def test_an_exception_in_the_samples_leaves_no_file(tmp_path: Path) -> None:
    def samples():
        yield encoded_sample(KEYS[0])
        raise RuntimeError("worker lost")

    with pytest.raises(RuntimeError, match="worker lost"):
        write_layer(tmp_path, 0, BASE_LAYER, samples())
    assert list((tmp_path / "shards").iterdir()) == []


def _with(name: str, data: bytes | None) -> tuple[str, dict[str, bytes]]:
    key, values = encoded_sample(KEYS[0])
    return key, {n: d for n, d in (values | {name: data}).items() if d is not None}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("clip 7", {})], "clip 'clip 7'"),
        ([encoded_sample(KEYS[0])] * 2, f"{KEYS[0]}: given twice"),
        ([_with("pose.npy", None)], f"{KEYS[0]}.*pose.npy"),
        ([encoded_sample(KEYS[1]), _with("face_tokens.npy", None)], f"{KEYS[0]}.*face_tokens.npy"),
        ([_with("face_tokens.npy", None), encoded_sample(KEYS[1])], f"{KEYS[1]}.*face_tokens.npy"),
        ([_with("audio.wav", b"")], f"{KEYS[0]}.*audio.wav"),
        ([_with("pose.npy", b"not an array")], f"{KEYS[0]}.*pose.npy"),
        ([_with("meta.json", encoded_sample(KEYS[1])[1]["meta.json"])], f"{KEYS[0]}.*{KEYS[1]}"),
    ],
)
def test_a_bad_sample_is_refused_by_name(tmp_path: Path, samples, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_layer(tmp_path, 0, BASE_LAYER, samples)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_damaged_field_is_refused_on_read(tmp_path: Path) -> None:
    write_layer(tmp_path, 0, BASE_LAYER, [encoded_sample(KEYS[0])])
    entry = read_index(index_path(tmp_path, 0)).entry(KEYS[0], "face.jpg")
    tar = tar_path(tmp_path, 0)
    data = bytearray(tar.read_bytes())
    data[entry.offset + 5] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DamageError, match=rf"{tar}.*{KEYS[0]}\.face\.jpg"):
        read_field(tar, entry)
    tar.write_bytes(data[: entry.offset + 5])
    with pytest.raises(DamageError, match=rf"{KEYS[0]}\.face\.jpg is cut short: 5 of"):
        read_field(tar, entry)


@given(st.text("abcdef.0123456789_-", min_size=1, max_size=100), st.integers(0, 8**11 - 1))
def test_a_header_is_what_tarfile_understands(name: str, nbytes: int) -> None:
    info = tarfile.TarInfo.frombuf(ustar.header(name, nbytes), "ascii", "strict")
    assert (info.name, info.size, info.mode, info.isreg()) == (name, nbytes, 0o644, True)
    assert (info.uid, info.gid, info.mtime, info.uname, info.gname) == (0, 0, 0, "", "")


@pytest.mark.parametrize(("name", "nbytes"), [("x" * 101, 0), ("x", 8**11), ("x", -1)])
def test_a_header_that_ustar_cannot_hold_is_refused(name: str, nbytes: int) -> None:
    with pytest.raises(ValueError, match="ustar"):
        ustar.header(name, nbytes)


def test_meta_is_readable_without_faceloom(written: Path) -> None:
    with tarfile.open(tar_path(written, 42)) as tar:
        assert json.load(tar.extractfile(f"{KEYS[2]}.meta.json"))["clip_id"] == KEYS[2]


def test_an_index_with_other_columns_is_refused(tmp_path: Path) -> None:
    write_layer(tmp_path, 0, BASE_LAYER, [encoded_sample(KEYS[0])])
    path = index_path(tmp_path, 0)
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "key", table["key"].cast("binary")), path)
    with pytest.raises(DamageError, match=rf"{path}.*columns"):
        read_index(path)
