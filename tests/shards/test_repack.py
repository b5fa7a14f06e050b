"""Repacking: the same samples, byte for byte, in other shards; whole or not at all."""

import hashlib
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceloom.cli import main
from faceloom.errors import UserError
from shards.dataset import DatasetRecord, index_path, ledger_path, tar_path
from shards.index import read_field, read_index
from shards.layers import LayerRecord, layer_ledger_path, layer_record_path
from shards.repack import repack, rewrite
from shards.verify import verify
from tests.shards.conftest import build_dataset, clip_key
from tests.shards.layered import add_latents
from tests.shards.test_verify import altered, flip

FAILED = clip_key(5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of three of which two are kept, the last block empty: clips 0, 2, 3, 5, 6, 8; one could not be encoded."""
    root = build_dataset(tmp_path_factory.mktemp("source") / "dataset", clips=10)
    return add_latents(root, failed=[FAILED])


KEPT = [clip_key(number) for number in (0, 2, 3, 5, 6, 8)]


def clips(root: Path, layer: str = "base") -> list[list[str]]:
    """The clip ids of each shard."""
    parts = range(DatasetRecord.load(root).manifest.blocks)
    return [list(read_index(index_path(root, part, layer)).keys) for part in parts]


def contents(root: Path, layer: str) -> dict[str, bytes]:
    """The bytes of every member."""
    return {
        entry.member: read_field(tar_path(root, part, layer), entry)
        for part in range(DatasetRecord.load(root).manifest.blocks)
        for entry in read_index(index_path(root, part, layer)).entries
    }


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_samples_keep_order_and_bytes_in_shards_of_one_size(source: Path, tmp_path: Path) -> None:
    made = repack(source, tmp_path / "new", 4)
    assert clips(tmp_path / "new") == [KEPT[:4], KEPT[4:]]
    assert contents(tmp_path / "new", "base") == contents(source, "base")
    assert (made.samples, made.shards, made.layers, made.left_out) == (6, 2, ("base", "latents"), ())


def test_layers_come_along_without_what_could_not_be_encoded(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4)
    assert clips(tmp_path / "new", "latents") == [[key for key in KEPT[:4] if key != FAILED], KEPT[4:]]
    assert contents(tmp_path / "new", "latents") == contents(source, "latents")
    rows = pq.read_table(layer_ledger_path(tmp_path / "new", "latents", 0)).to_pylist()
    assert [row["clip_id"] for row in rows] == KEPT[:4]
    assert [row["error"] for row in rows] == [None, None, None, "CodecError"]  # clip 5
    assert [row["shard_sample"] for row in rows] == [0, 1, 2, None]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 8), seed=st.one_of(st.none(), st.integers(0, 2**63)), twice=st.booleans())
def test_whatever_is_repacked_verifies(
    source: Path, tmp_path_factory: pytest.TempPathFactory, size: int, seed: int | None, twice: bool
) -> None:
    folder = tmp_path_factory.mktemp("repacked")
    repack(source, folder / "new", size, seed)
    if twice:
        repack(folder / "new", folder / "newer", 3, seed, "clip_id > '3'")
    root = folder / ("newer" if twice else "new")
    assert verify(root) == []
    if not twice:
        assert sorted(chain(*clips(root))) == sorted(KEPT)
        assert {len(shard) for shard in clips(root)[:-1]} <= {size}
    shutil.rmtree(folder)


def test_a_shuffle_mixes_shards_and_is_the_same_for_the_same_seed(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        repack(source, tmp_path / name, 2, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    orders = [list(chain(*clips(tmp_path / name))) for name in ("a", "c")]
    assert orders[0] != orders[1] != KEPT != orders[0]


def test_only_clips_for_which_the_condition_holds_are_taken(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4, where=f"clip_id IN ('{KEPT[3]}', '{KEPT[1]}', '{clip_key(1)}')")
    assert clips(tmp_path / "new") == [[KEPT[1], KEPT[3]]]


def test_the_condition_sees_the_statistics_of_the_ledger(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4, where="yaw_range_deg > 0.5")  # sin(0) and sin(2) of each block
    assert clips(tmp_path / "new") == [[KEPT[1], KEPT[3], KEPT[5]]]


def test_the_ledger_has_the_rows_of_the_samples_numbered_anew(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4)
    rows = pq.read_table(ledger_path(tmp_path / "new", 1)).to_pylist()
    before = {row["clip_id"]: row for part in range(4) for row in pq.read_table(ledger_path(source, part)).to_pylist()}
    assert rows == [before[key] | {"shard_sample": place} for place, key in enumerate(KEPT[4:])]


def test_the_record_says_where_it_came_from_and_how(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4, 7, "true")
    repack(tmp_path / "new", tmp_path / "newer", 2)
    old, new, newer = (DatasetRecord.load(root) for root in (source, tmp_path / "new", tmp_path / "newer"))
    origin = {"base": old.checksum, "samples_per_shard": 4, "shuffle": 7, "where": "true"}
    assert new.config == {**old.config, "repacked_from": origin}
    assert newer.config["repacked_from"]["base"] == new.checksum
    assert newer.config["repacked_from"]["repacked_from"] == origin
    assert (new.config_fingerprint, new.fingerprints) == (old.config_fingerprint, old.fingerprints)
    layers = [LayerRecord.load(root, "latents", base) for root, base in ((source, old), (tmp_path / "new", new))]
    assert layers[0].fingerprint == layers[1].fingerprint


def test_the_ledgers_are_those_of_finished_runs_on_the_new_dataset(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "new", 4)
    record = DatasetRecord.load(tmp_path / "new")
    layer = LayerRecord.load(tmp_path / "new", "latents", record)
    runs = [
        pq.read_schema(path).metadata[b"run"].decode()
        for path in (ledger_path(tmp_path / "new", 1), layer_ledger_path(tmp_path / "new", "latents", 1))
    ]
    assert runs == [record.config_fingerprint, layer.run]
    assert layer.run != LayerRecord.load(source, "latents", DatasetRecord.load(source)).run


def test_a_layer_that_is_not_complete_is_left_out(source: Path, tmp_path: Path) -> None:
    root = add_latents(Path(shutil.copytree(source, tmp_path / "copy")), "latents-half")
    LayerRecord.load(root, "latents-half", DatasetRecord.load(root)).model_copy(update={"complete": False}).save(root)
    made = repack(root, tmp_path / "new", 4)
    assert (made.layers, made.left_out) == (("base", "latents"), ("latents-half",))
    assert not layer_record_path(tmp_path / "new", "latents-half").exists()
    assert verify(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("no_such_column > 1", "no_such_column"),
        ("clip_id = 'x'", "none of the 6 kept clips"),
        ("clip_id >", "clip_id >"),
    ],
)
def test_a_condition_that_gives_nothing_is_refused(source: Path, tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        repack(source, tmp_path / "new", 4, where=where)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_already_is_never_overwritten(source: Path, tmp_path: Path, there: str) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        repack(source, tmp_path / "new" / ("file" if there == "file" else ""), 4)
    assert (tmp_path / "new" / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("shards/part-00001.base.tar", r"part-00001\.base\.tar: [0-9a-f]{16}\.video\.mp4"),
        ("shards/part-00000.latents.parquet", r"part-00000\.latents\.parquet"),
        ("ledger/part-00002.parquet", r"ledger/part-00002\.parquet"),
        ("layers/latents/part-00002.parquet", r"latents/part-00002\.parquet"),
    ],
)
def test_damage_is_named_and_never_copied(source: Path, tmp_path: Path, file: str, named: str) -> None:
    with (
        altered(source / file, flip(700, 1)),
        pytest.raises(UserError, match=rf"{named}.*faceloom verify {source}"),
    ):
        repack(source, tmp_path / "new", 4)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_dataset_is_refused(source: Path, tmp_path: Path) -> None:
    DatasetRecord.load(source).model_copy(update={"complete": False}).save(tmp_path)
    with pytest.raises(UserError, match="not complete"):
        repack(tmp_path, tmp_path / "new", 4)


REPACK_AND_DIE = """
import os, sys
from pathlib import Path
from shards import repack

write, calls = repack.write_layer, iter(range(int(sys.argv[3])))
repack.write_layer = lambda *arguments: os._exit(9) if next(calls, None) is None else write(*arguments)
repack.repack(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[4]))
"""


def test_a_killed_repack_leaves_no_dataset_and_may_be_run_again(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "whole", 4)
    # Killed in the base, killed in the layer with more and smaller shards, then whole: two parts of two layers.
    for calls, size, status in ((1, 4, 9), (9, 1, 9), (4, 4, 0)):
        command = [sys.executable, "-c", REPACK_AND_DIE, str(source), str(tmp_path / "new"), str(calls), str(size)]
        assert subprocess.run(command, check=False).returncode == status
        assert (tmp_path / "new").exists() == (status == 0)
    assert files(tmp_path / "new") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "whole"]


def test_the_command_says_what_it_made(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["shards", "repack", str(source), "--out", str(tmp_path / "new"), "--samples-per-shard", "4"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--shuffle", "3", "--where", "yaw_range_deg < 0.5"])
    assert end.value.code == 0
    assert "3 samples in 1 shards; layers: base, latents" in capsys.readouterr().out
    assert DatasetRecord.load(tmp_path / "new").config["repacked_from"]["shuffle"] == 3


def test_the_command_refuses_with_status_2(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["shards", "repack", str(source), "--out", str(source)])
    assert end.value.code == 2
    assert "exists already" in capsys.readouterr().err


def without(root: Path, *dropped: str) -> pa.Table:
    """The ledger of a dataset as if a rule had decided against these clips."""
    rows = pa.concat_tables(pq.read_table(ledger_path(root, part)) for part in range(4))
    outcome = ["rejected" if r["clip_id"] in dropped else r["outcome"] for r in rows.to_pylist()]
    return rows.set_column(rows.schema.get_field_index("outcome"), rows.schema.field("outcome"), pa.array(outcome))


def test_under_another_ledger_the_parts_stay_and_hold_fewer_samples(source: Path, tmp_path: Path) -> None:
    old = DatasetRecord.load(source)
    made = rewrite(source, tmp_path / "new", without(source, clip_key(0), clip_key(8)), {"mine": 1})
    assert (made.samples, made.shards) == (4, 4)
    assert clips(tmp_path / "new") == [[clip_key(2)], [clip_key(3), clip_key(5)], [clip_key(6)], []]
    assert clips(tmp_path / "new", "latents") == [[clip_key(2)], [clip_key(3)], [clip_key(6)], []]
    for layer in ("base", "latents"):
        assert contents(tmp_path / "new", layer).items() <= contents(source, layer).items()
    for part in range(4):
        assert len(pq.read_table(ledger_path(tmp_path / "new", part))) == len(pq.read_table(ledger_path(source, part)))
    new = DatasetRecord.load(tmp_path / "new")
    assert new.config == {"mine": 1, "redecided_from": {"base": old.checksum}}
    assert (new.manifest, new.fingerprints) == (old.manifest, old.fingerprints)
    assert verify(tmp_path / "new") == []


def test_a_ledger_of_other_clips_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not of the same clips"):
        rewrite(source, tmp_path / "new", without(source).slice(1), {})
    assert list(tmp_path.iterdir()) == []
