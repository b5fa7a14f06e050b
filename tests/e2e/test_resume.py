"""A run that is killed and started again ends with the bytes of a run that was left alone."""

import shutil
from functools import partial
from pathlib import Path

import psutil
import pytest

from curation.config import CurationConfig
from curation.ledger import read_ledger
from curation.preflight import PoolSizes, prepare
from curation.run import Runner
from faceloom import config
from faceloom.errors import UserError
from faceloom.lease_file import lease_path
from shards.dataset import DatasetRecord, index_path, ledger_path, tar_path
from tests.e2e.command import (
    curate,
    curate_arguments,
    kill_all,
    kill_with_descendants,
    runs_a_method,
    started,
    tree,
    wait_until,
)

pytestmark = pytest.mark.e2e


def _fragments(dataset: Path) -> dict[Path, int]:
    """When each committed block was committed."""
    return {path: path.stat().st_mtime_ns for path in dataset.glob("ledger/part-*.parquet")}


def _computes_flow(_: Path, driver: psutil.Process, _committed: dict[Path, int]) -> bool:
    return runs_a_method(driver, "FlowStage.finish")


def _writes_a_shard(dataset: Path, _: psutil.Process, _committed: dict[Path, int]) -> bool:
    """One of the two that will hold a sample."""
    return any(dataset.glob("shards/.part-0000[01].base.tar.*"))


def _commits_another_block(dataset: Path, _: psutil.Process, committed: dict[Path, int]) -> bool:
    return len(_fragments(dataset)) > len(committed)


@pytest.mark.slow
def test_killed_with_all_its_workers_again_and_again_and_resumed(
    manifest: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """In one dataset, so that each run goes on from what the last one left."""
    out = tmp_path / "dataset"
    committed: dict[Path, int] = {}
    for moment in (_computes_flow, _commits_another_block):
        with started(*curate_arguments(manifest, out)) as driver:
            wait_until(partial(moment, out, driver, committed), driver)
            kill_with_descendants(driver)
        assert not DatasetRecord.load(out).complete
        assert _fragments(out).items() >= committed.items(), "a committed block was done again"
        committed = _fragments(out)
        assert len(committed) < 4, moment.__name__

    curate(manifest, out)

    assert tree(out) == tree(undisturbed)
    assert _fragments(out).items() >= committed.items(), "a committed block was done again"


def test_a_driver_killed_alone_and_resumed_at_once(manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    """While it lives, a second one is refused. What was below the dead one may still be writing while the next starts."""
    out = tmp_path / "dataset"
    second = Runner(prepare(config.load(CurationConfig, "demo"), manifest, out), PoolSizes(1, 1), lambda _: None)
    with started(*curate_arguments(manifest, out)) as driver:
        wait_until(lease_path(out).exists, driver)
        with pytest.raises(UserError, match=rf"is being worked on: .*process {driver.pid}"):
            second.run()
        wait_until(lambda: _writes_a_shard(out, driver, {}), driver)
        orphans = driver.children(recursive=True)
        driver.kill()
        try:
            curate(manifest, out)
        finally:
            kill_all(orphans)

    assert tree(out) == tree(undisturbed)


def test_whatever_a_death_left_lying_about_is_replaced(manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(undisturbed, out)
    record = DatasetRecord.load(out)
    record.model_copy(update={"complete": False, "shards": ()}).save(out)
    # Block 1 has a torn tar and an old index but no fragment, block 2 an index without its tar; blocks 0 and 3 are committed.
    for block in (1, 2):
        ledger_path(out, block).unlink()
    torn = tar_path(out, 1).read_bytes()
    tar_path(out, 1).write_bytes(torn[: len(torn) // 2])
    tar_path(out, 2).unlink()
    for name in (
        ".dataset.json.0011aabb",
        "shards/.part-00001.base.tar.0011aabb",
        "ledger/.part-00001.parquet.0011aabb",
    ):
        (out / f"{name}.faceloom-tmp").write_bytes(b"half")
    assert index_path(out, 2).exists()

    curate(manifest, out)

    assert tree(out) == tree(undisturbed)


def test_a_death_between_the_last_block_and_the_seal_only_seals(
    manifest: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(undisturbed, out)
    DatasetRecord.load(out).model_copy(update={"complete": False, "shards": ()}).save(out)

    curate(manifest, out)

    assert tree(out) == tree(undisturbed)


def test_the_undisturbed_run_decides_every_clip(undisturbed: Path) -> None:
    rows = read_ledger(undisturbed).to_pylist()
    decided = [(row["source_key"], row["outcome"], row["rule"] or row["error"]) for row in rows]
    assert decided == [
        ("whole", "kept", None),
        ("too_short.mp4", "rejected", "too_short"),
        ("cut_short.mp4", "failed", "TruncatedVideoError"),
        ("span", "kept", None),
        ("frozen.mp4", "rejected", "frozen"),
        ("absent", "failed", "NotAFileError"),
        ("same again", "rejected", "duplicate"),
    ]
