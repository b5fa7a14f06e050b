"""A long source becomes several samples."""

import itertools
from pathlib import Path

import pytest

from curation.ledger import read_ledger
from curation.samples import kept_samples
from curation.sources import Clip, write_manifest
from shards.dataset import DatasetRecord
from shards.reader import ShardedDataset
from shards.repack import repack
from shards.verify import verify
from tests.e2e.command import curate, faceloom
from tests.e2e.conftest import long_man

pytestmark = pytest.mark.e2e

MOST = ("--set", "window.most=3")


@pytest.fixture(scope="module")
def long_manifest(footage: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of 12 s, and one that is too short."""
    folder = tmp_path_factory.mktemp("long")
    write_manifest([Clip("test", "long", str(long_man(folder, 3))), footage["too_short.mp4"]], folder / "m.parquet")
    return folder / "m.parquet"


@pytest.fixture(scope="module")
def dataset(long_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes of them."""
    out = tmp_path_factory.mktemp("windows") / "dataset"
    curate(long_manifest, out, *MOST)
    return out


def test_the_samples_of_a_long_source_share_at_most_half_of_their_frames(dataset: Path) -> None:
    rows = read_ledger(dataset).to_pylist()
    assert [(row["source_key"], row["window"], row["outcome"]) for row in rows] == [
        ("long", 0, "kept"),
        ("long", 1, "kept"),
        ("long", 2, "kept"),
        ("too_short.mp4", 0, "rejected"),
    ]
    assert [row["of_clip"] for row in rows] == [None, rows[0]["clip_id"], rows[0]["clip_id"], None]
    scores = [row["motion_score"] for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)

    metas = [sample["meta.json"] for sample in kept_samples(dataset, "long")]
    assert [meta["clip_id"] for meta in metas] == [row["clip_id"] for row in rows[:3]]
    for a, b in itertools.combinations([meta["pts_s"] for meta in metas], 2):
        shared_s = min(a[-1], b[-1]) - max(a[0], b[0])
        assert shared_s <= 23 / 12 + 0.03  # 24 frames at most, each as near to its instant as 30 a second allow
    for row, meta in list(zip(rows, metas, strict=False))[1:3]:
        assert row["t0_s"] == pytest.approx(meta["pts_s"][0], abs=1e-5)
        assert row["t1_s"] == pytest.approx(meta["pts_s"][-1] + 1 / 12, abs=1e-5)


def test_a_dataset_with_several_samples_a_clip_is_whole_and_is_read(dataset: Path, tmp_path: Path) -> None:
    assert verify(dataset) == []
    assert "2 of 2 clips decided, 3 samples; complete" in faceloom("status", dataset).stdout
    assert DatasetRecord.load(dataset).manifest.clips == 2
    samples = ShardedDataset(dataset, ["flow.npy", "meta.json"])
    assert len({samples[i]["meta.json"]["clip_id"] for i in range(len(samples))}) == 3
    repack(dataset, tmp_path / "further", 256, where="of_clip IS NOT NULL")
    assert verify(tmp_path / "further") == []
    assert "2 of 2 clips decided, 2 samples" in faceloom("status", tmp_path / "further").stdout
