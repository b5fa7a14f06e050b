"""What ``faceloom curate`` refuses before it starts any work, and by which words."""

import shutil
import time
from pathlib import Path

import pytest

from curation.ledger import read_ledger
from curation.sources import Clip, write_manifest
from shards.dataset import RECORD_NAME, ledger_path
from tests.e2e.command import curate, curate_arguments, faceloom, tree

pytestmark = pytest.mark.e2e


def test_another_configuration_on_a_dataset_is_refused_by_the_difference(manifest: Path, undisturbed: Path) -> None:
    before = tree(undisturbed)
    arguments = curate_arguments(manifest, undisturbed)
    refused = faceloom(*arguments, "--set", "flow.iterations=3", "--set", "motion.max_yaw_deg=40", exit_code=2)
    assert "flow.iterations: 2 → 3" in refused.stderr
    assert "motion.max_yaw_deg: " in refused.stderr
    assert "--out" in refused.stderr
    assert tree(undisturbed) == before


def test_more_workers_are_no_other_configuration(manifest: Path, undisturbed: Path) -> None:
    arguments = curate_arguments(manifest, undisturbed)
    assert "nothing to do" in faceloom(*arguments, "--set", "run.face.workers=2").stdout


def test_a_missing_model_is_refused_by_the_command_that_gets_it(manifest: Path, tmp_path: Path) -> None:
    nowhere = {"XDG_CACHE_HOME": str(tmp_path), "FACELOOM_MODELS": ""}
    refused = faceloom(*curate_arguments(manifest, tmp_path / "dataset"), environment=nowhere, exit_code=2)
    assert "faceloom models fetch face_landmarker" in refused.stderr
    assert not (tmp_path / "dataset" / RECORD_NAME).exists()


def test_an_unknown_key_is_refused_by_the_nearest_name(manifest: Path, tmp_path: Path) -> None:
    arguments = curate_arguments(manifest, tmp_path / "dataset")
    assert "flow.iterations" in faceloom(*arguments, "--set", "flow.iteration=3", exit_code=2).stderr


def test_a_damaged_fragment_is_refused_by_its_name(manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "dataset"))
    fragment = ledger_path(out, 1)
    fragment.write_bytes(fragment.read_bytes()[:1000])
    refused = faceloom(*curate_arguments(manifest, out), exit_code=2)
    assert fragment.name in refused.stderr
    assert "delete it" in refused.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_an_address_without_a_cluster_is_refused_at_once(manifest: Path, tmp_path: Path, address: str) -> None:
    begin = time.monotonic()
    refused = faceloom(*curate_arguments(manifest, tmp_path / "dataset"), "--address", address, exit_code=2)
    assert f"no Ray cluster at {address}" in refused.stderr
    assert "ray start --head" in refused.stderr
    assert time.monotonic() - begin < 60


def test_a_plan_writes_no_dataset(manifest: Path, tmp_path: Path) -> None:
    plan = faceloom(*curate_arguments(manifest, tmp_path / "dataset"), "--plan").stdout
    assert "7 in 4 blocks of 2" in plan
    assert "4 blocks" in plan
    assert tree(tmp_path) == {}


def test_a_limit_decides_the_first_clips_and_belongs_to_the_run(footage: dict[str, Clip], tmp_path: Path) -> None:
    manifest, out = tmp_path / "manifest.parquet", tmp_path / "dataset"
    write_manifest([footage[name] for name in ("too_short.mp4", "cut_short.mp4", "frozen.mp4")], manifest)
    curate(manifest, out, "--limit", "2")
    assert read_ledger(out, ["source_key"])["source_key"].to_pylist() == ["too_short.mp4", "cut_short.mp4"]
    faceloom("verify", out)
    refused = faceloom(*curate_arguments(manifest, out), exit_code=2)
    assert "manifest.clips: 2 → 3" in refused.stderr
