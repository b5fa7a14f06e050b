"""``faceloom shards stats``: its figures against the tars themselves."""

import json
import shutil
import statistics
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from faceloom.cli import main
from faceloom.errors import UserError
from shards.dataset import DatasetRecord
from shards.layers import LayerRecord, layer_ledger_path
from shards.stats import stats
from tests.shards.conftest import clip_key
from tests.shards.layered import add_latents
from tests.shards.test_verify import altered, flip


@pytest.fixture
def layered(dataset: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    return add_latents(root, failed=[clip_key(5)])


@pytest.mark.parametrize(("number", "layer"), [(0, "base"), (1, "latents")])
def test_the_figures_are_those_of_the_tars(layered: Path, number: int, layer: str) -> None:
    found = stats(layered)[number]
    tars = sorted((layered / "shards").glob(f"*.{layer}.tar"))
    samples, nbytes, members = [], Counter[str](), Counter[str]()
    for tar in tars:
        with tarfile.open(tar) as archive:
            names = [(info.name.split(".", 1), info.size) for info in archive]
        samples.append(len({key for (key, _), _ in names}))
        for (_, field), size in names:
            nbytes[field] += size
            members[field] += 1
    assert {field.field: (field.samples, field.bytes) for field in found.fields} == {
        field: (members[field], nbytes[field]) for field in nbytes
    }
    assert all(field.mean_bytes == nbytes[field.field] / members[field.field] for field in found.fields)
    assert (found.layer, found.complete, found.shards, found.parts) == (layer, True, len(tars), len(tars))
    assert (found.samples, found.bytes) == (sum(samples), sum(tar.stat().st_size for tar in tars))
    spread = (found.shard_samples_min, found.shard_samples_median, found.shard_samples_max)
    assert spread == (min(samples), statistics.median(samples), max(samples))


def test_fingerprints_are_those_of_the_records(layered: Path) -> None:
    assert [layer.fingerprint for layer in stats(layered)] == ["c" * 64, "e" * 64]


def test_an_unfinished_layer_counts_what_is_committed(layered: Path) -> None:
    record = LayerRecord.load(layered, "latents", DatasetRecord.load(layered))
    record.model_copy(update={"complete": False, "shards": (), "ledger": ()}).save(layered)
    layer_ledger_path(layered, "latents", 0).unlink()
    _, layer = stats(layered)
    assert (layer.complete, layer.shards, layer.parts, layer.samples) == (False, 2, 3, 1)


def test_a_damaged_index_is_named(layered: Path) -> None:
    file = layered / "shards" / "part-00001.latents.parquet"
    with altered(file, flip(-1, 1)), pytest.raises(UserError, match=rf"{file.name}.*faceloom verify"):
        stats(layered)


def test_the_command_prints_every_field_and_the_state(layered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["shards", "stats", str(layered)])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "latents: complete, fingerprint eeeeeeeeeeee" in out
    assert "landmarks.u16.npy" in out
    assert "0 / 1 / 2 (min / median / max)" in out


def test_json_is_for_programs(layered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["shards", "stats", str(layered), "--json"])
    base, layer = json.loads(capsys.readouterr().out)
    assert (base["samples"], layer["samples"]) == (4, 3)
    assert layer["fields"][0]["field"] == "video_moments.safetensors"
