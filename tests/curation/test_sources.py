from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.sources import SCHEMA, Clip, label_text, open_manifest, write_manifest
from faceloom.errors import UserError
from faceloom.location import location
from faceloom.transfers import StorageConfig, attempts
from tests.s3 import Endpoint


def clips(count: int) -> list[Clip]:
    return [Clip("set", f"{i:04}.mp4", f"/data/{i:04}.mp4") for i in range(count)]


def test_the_identity_of_a_clip_is_16_hex_digits_of_dataset_key_and_span() -> None:
    clip = Clip("set", "a/b.mp4", "/here/b.mp4", 1.0, 5.0)
    assert len(clip.clip_id) == 16
    int(clip.clip_id, 16)
    others = [
        Clip("set2", "a/b.mp4", "/here/b.mp4", 1.0, 5.0),
        Clip("set", "a/c.mp4", "/here/b.mp4", 1.0, 5.0),
        Clip("set", "a/b.mp4", "/here/b.mp4", 0.0, 5.0),
        Clip("set", "a/b.mp4", "/here/b.mp4", 1.0, None),
        Clip("seta", "/b.mp4", "/here/b.mp4", 1.0, 5.0),
    ]
    assert len({clip.clip_id, *(other.clip_id for other in others)}) == 6


def test_moving_the_data_does_not_change_the_identity() -> None:
    assert Clip("set", "b.mp4", "/here/b.mp4").clip_id == Clip("set", "b.mp4", "/there/b.mp4", licence="x").clip_id


def test_the_identity_is_the_same_for_ever() -> None:
    assert Clip("set", "a.mp4", "/a.mp4").clip_id == "7ff6450ede186e94"
    assert Clip("set", "a.mp4", "/a.mp4", 2.5, 7.0).clip_id == "1f2fc96ec8c54395"


def test_the_type_of_a_time_does_not_change_the_identity() -> None:
    numbers = [(2, 7), (2.0, 7.0), (np.float64(2), np.float64(7)), (np.int64(2), np.float32(7))]
    assert len({Clip("set", "a", "/a", t0, t1).clip_id for t0, t1 in numbers}) == 1


@given(
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    t0=st.floats(0, 1e4),
    t1=st.none() | st.floats(0, 1e4),
)
def test_a_clip_comes_back_from_the_manifest_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, key: str, t0: float, t1: float | None
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "m.parquet"
    clip = Clip("set", key, f"/data/{key}", t0, t1, "p1", "CC0", "other", True, label_text(said=key, n=1))
    write_manifest([clip], path)
    ((back,),) = open_manifest(path).blocks(8)
    assert back == clip
    assert pq.read_table(path)["clip_id"].to_pylist() == [back.clip_id]


@pytest.mark.parametrize("size", [1, 7, 50, 100, 5000])
@pytest.mark.parametrize("limit", [None, 0, 1, 50, 99, 100, 1000])
def test_blocks_are_the_clips_in_order(tmp_path: Path, size: int, limit: int | None) -> None:
    write_manifest(clips(100), tmp_path / "m.parquet")
    blocks = list(open_manifest(tmp_path / "m.parquet").blocks(size, limit))
    expected = clips(100)[:limit]
    assert [clip for block in blocks for clip in block] == expected
    assert all(len(block) == size for block in blocks[:-1])
    assert all(0 < len(block) <= size for block in blocks)


def test_blocks_do_not_depend_on_how_parquet_batches_rows(tmp_path: Path) -> None:
    write_manifest(clips(3000), tmp_path / "m.parquet")
    blocks = list(open_manifest(tmp_path / "m.parquet").blocks(256, 2900))
    assert [len(block) for block in blocks] == [256] * 11 + [84]
    assert [clip for block in blocks for clip in block] == clips(2900)


def test_a_manifest_is_written_with_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_manifest(clips(10), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert open_manifest(tmp_path / "a").sha256 == open_manifest(tmp_path / "b").sha256


def test_a_clip_listed_twice_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"listed more than once \(0001\.mp4\)"):
        write_manifest([*clips(3), clips(3)[1]], tmp_path / "m.parquet")
    assert not list(tmp_path.iterdir())


def test_no_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clips"):
        write_manifest([], tmp_path / "m.parquet")


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="faceloom ingest"):
        open_manifest(tmp_path / "m.parquet")


def test_a_manifest_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_text("clip,path\n")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        open_manifest(tmp_path / "m.parquet")


def test_a_manifest_without_a_column_names_it(tmp_path: Path) -> None:
    write_manifest(clips(2), tmp_path / "m.parquet")
    pq.write_table(pq.read_table(tmp_path / "m.parquet").drop_columns(["path", "t1_s"]), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="lacks the columns path, t1_s"):
        open_manifest(tmp_path / "m.parquet")


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([], SCHEMA), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="holds no clips"):
        open_manifest(tmp_path / "m.parquet")


def test_a_manifest_made_elsewhere_may_have_more_columns(tmp_path: Path) -> None:
    write_manifest(clips(2), tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet").append_column("note", pa.array(["a", "b"]))
    pq.write_table(table, tmp_path / "m.parquet")
    assert [clip for block in open_manifest(tmp_path / "m.parquet").blocks(8) for clip in block] == clips(2)


def test_a_clip_id_that_is_not_its_clips_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest([Clip("d", "a.mp4", "/x/a.mp4"), Clip("d", "b.mp4", "/x/b.mp4")], path)
    table = pq.read_table(path)
    stale = table.set_column(0, table.schema.field("clip_id"), table["clip_id"].take([1, 0]))
    pq.write_table(stale, path)
    with pytest.raises(UserError, match=r"clip id of a\.mp4 does not belong"):
        open_manifest(path)


def test_labels_are_one_json_object_in_any_order_without_what_is_unknown() -> None:
    assert label_text(emotion="happy", crop=[1, 2], actor=None) == '{"crop":[1,2],"emotion":"happy"}'
    assert label_text(name="Zoë") == '{"name":"Zoë"}'
    assert label_text(actor=None) is label_text() is None


def test_labels_are_found_by_sql(tmp_path: Path) -> None:
    emotions = ["happy", None, "sad"]
    labelled = [
        Clip("set", str(n), f"/{n}.mp4", labels=label_text(emotion=emotion, n=n)) for n, emotion in enumerate(emotions)
    ]
    write_manifest(labelled, tmp_path / "m.parquet")
    manifest = duckdb.read_parquet(str(tmp_path / "m.parquet"))
    assert manifest.filter("labels->>'emotion' = 'sad'").project("source_key").fetchall() == [("2",)]


def test_more_clips_than_a_batch_holds_are_written_and_repeats_between_batches_refused(tmp_path: Path) -> None:
    many = clips(70_000)
    assert write_manifest(iter(many), tmp_path / "m.parquet") == 70_000
    assert pq.ParquetFile(tmp_path / "m.parquet").num_row_groups == 2
    with pytest.raises(UserError, match=r"listed more than once \(0000\.mp4\)"):
        write_manifest(iter([*many, many[0]]), tmp_path / "n.parquet")


def test_a_manifest_behind_a_url_is_the_same_manifest(s3: Endpoint, tmp_path: Path) -> None:
    write_manifest(clips(10), tmp_path / "m.parquet")
    remote = location("s3://footage/m.parquet")
    write_manifest(clips(10), remote)
    with attempts(StorageConfig(scratch=str(tmp_path))):
        opened = open_manifest(remote)
        assert opened.path == remote
        assert opened.sha256 == open_manifest(tmp_path / "m.parquet").sha256
        assert [clip for block in opened.blocks(4) for clip in block] == clips(10)
    assert not opened.file.exists()


@pytest.mark.parametrize(("data", "told"), [(None, "no manifest at"), (b"clip,path", "not a readable Parquet")])
def test_what_is_wrong_with_a_manifest_behind_a_url_names_the_url(s3: Endpoint, data: bytes | None, told: str) -> None:
    remote = location("s3://footage/m.parquet")
    if data is not None:
        remote.write_bytes(data)
    with pytest.raises(UserError, match=told) as refused:
        open_manifest(remote)
    assert "s3://footage/m.parquet" in str(refused.value)
    assert "scratch" not in str(refused.value)
    assert "/tmp" not in str(refused.value)  # noqa: S108


def test_a_manifest_whose_paths_hold_a_secret_is_refused_without_telling_it(tmp_path: Path) -> None:
    write_manifest([Clip("d", "a.mp4", "https://h/a.mp4?X-Amz-Signature=hunter2")], tmp_path / "m.parquet")
    with pytest.raises(UserError, match=r"path of a\.mp4 holds .* signature") as refused:
        open_manifest(tmp_path / "m.parquet")
    assert "hunter2" not in str(refused.value)
