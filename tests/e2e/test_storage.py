"""Manifest, sources and output behind URLs, on a true S3 endpoint that throttles and hangs up."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.sources import Clip, open_manifest, write_manifest
from faceloom.location import location
from shards.cache import ShardCache
from shards.files import DatasetFiles
from tests import s3 as faults
from tests.e2e.command import curate_arguments, faceloom, started, tree, wait_until
from tests.s3 import BUCKET, Endpoint

pytestmark = pytest.mark.e2e

OUT = "s3://footage/sets/man"


def uploaded(s3: Endpoint, manifest: Path) -> dict[str, str]:
    """Put the clips' files into the bucket, and a manifest of them; the local path of each URL."""
    local_of: dict[str, str] = {}
    client = s3.client()

    def moved(clip: Clip) -> Clip:
        url = f"s3://{BUCKET}/in/{Path(clip.path).name}"
        if Path(clip.path).exists():
            client.put_object(Bucket=BUCKET, Key=f"in/{Path(clip.path).name}", Body=Path(clip.path).read_bytes())
        local_of[url] = clip.path
        return replace(clip, path=url)

    (clips,) = open_manifest(manifest).blocks(100)
    write_manifest([moved(clip) for clip in clips], location(f"s3://{BUCKET}/lists/m.parquet"))
    return local_of


def rows(fragment: bytes, local_of: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of a ledger fragment as they would be if the sources lay where ``local_of`` says."""
    found = pq.read_table(io.BytesIO(fragment)).to_pylist()
    for row in found:
        for url, local in local_of.items():
            row["path"] = local if row["path"] == url else row["path"]
            row["message"] = row["message"] and row["message"].replace(url, local)
        if row["source_key"] == "absent":
            row["stage"] = "probe"  # where a local file is missed first
    return found


def test_a_run_on_s3_that_is_killed_once_ends_with_the_bytes_of_a_local_one(
    s3: Endpoint, manifest: Path, undisturbed: Path, tmp_path: Path
) -> None:
    local_of = uploaded(s3, manifest)
    arguments = curate_arguments(Path(), Path())[:-4]
    more = ("--manifest", f"s3://{BUCKET}/lists/m.parquet", "--out", OUT, "--set", f"storage.scratch={tmp_path}")

    with (
        s3.fault("^GET /footage/in/", faults.error("503 Slow Down", "SlowDown"), times=6),
        s3.fault("^PUT /footage/sets/man/shards/part-00000.base.tar", faults.hang_up, times=6),
    ):
        with started(*arguments, *more) as driver:
            # Without questions to the endpoint, which has the run to serve. But a request may not be done yet: killed in the
            # middle of it, nothing would be committed.
            wait_until(lambda: s3.count("^PUT .*/ledger/part-00000") > 0, driver)
            committed = {"Bucket": BUCKET, "Prefix": "sets/man/ledger/part-00000"}
            client = s3.client()
            wait_until(lambda: client.list_objects_v2(**committed)["KeyCount"] > 0, driver)
        assert json.loads(s3.objects("sets/man/")["dataset.json"])["complete"] is False
        s3.lines.clear()
        faceloom(*arguments, *more)

    assert s3.count("^PUT .*/ledger/part-00000") == 0, "a committed block was done again"
    assert s3.count("^PUT .*/ledger/part-0000[123]") == 3
    made = {name: data for name, data in s3.objects("sets/man/").items() if not name.startswith("telemetry/")}
    assert made.keys() == tree(undisturbed).keys()
    for name, data in made.items():
        expected = (undisturbed / name).read_bytes()
        if name.startswith("shards/"):
            assert data == expected, name
        elif name.startswith("ledger/"):
            assert rows(data, local_of) == rows(expected, local_of), name
            assert str(tmp_path).encode() not in data
    here, there = json.loads((undisturbed / "dataset.json").read_bytes()), json.loads(made["dataset.json"])
    for differs in ("checksum", "ledger", "manifest"):  # for the paths of the sources are others
        del here[differs], there[differs]
    assert there == here
    assert b"s3://" not in made["dataset.json"]
    assert s3.unfinished_uploads() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []

    assert "nothing to do" in faceloom(*arguments, *more).stdout
    assert "every file is as it was written" in faceloom("verify", OUT).stdout
    status = json.loads(faceloom("status", OUT, "--json").stdout)
    assert (status["complete"], status["decided"], status["samples"]) == (True, 7, 2)
    assert json.loads(faceloom("explain", OUT, "whole", "--json").stdout)["outcome"]["outcome"] == "kept"
    record, _ = DatasetFiles(OUT, ShardCache(tmp_path / "cache", 1 << 30)).load_records([])
    assert record.complete
