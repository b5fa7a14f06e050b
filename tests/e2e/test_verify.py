"""``faceloom verify`` names what was damaged in a dataset of a true run, and exits with 1."""

import shutil
from pathlib import Path

import pytest

from shards.dataset import ledger_path, tar_path
from shards.index import read_index
from tests.e2e.command import faceloom

pytestmark = pytest.mark.e2e


@pytest.fixture
def dataset(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(undisturbed, tmp_path / "dataset"))


def test_an_untouched_dataset_passes(dataset: Path) -> None:
    assert "as it was written" in faceloom("verify", dataset).stdout


@pytest.mark.parametrize("field", ["video.mp4", "flow.npy", "meta.json"])
def test_one_flipped_byte_names_its_member(dataset: Path, field: str) -> None:
    tar = tar_path(dataset, 1)
    (entry,) = [entry for entry in read_index(tar.with_suffix(".parquet")).entries if entry.field == field]
    with tar.open("r+b") as file:
        file.seek(entry.offset + entry.nbytes // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    told = faceloom("verify", dataset, exit_code=1).stdout
    assert tar.name in told
    assert entry.member in told


def test_a_tar_cut_short_names_the_first_member_that_is_not_whole(dataset: Path) -> None:
    tar = tar_path(dataset, 0)
    entry = read_index(tar.with_suffix(".parquet")).entries[0]
    with tar.open("r+b") as file:
        file.truncate(entry.offset + entry.nbytes - 1)
    told = faceloom("verify", dataset, exit_code=1).stdout
    assert tar.name in told
    assert entry.member in told


def test_a_missing_fragment_is_named(dataset: Path) -> None:
    ledger_path(dataset, 2).unlink()
    told = faceloom("verify", dataset, exit_code=1).stdout
    assert ledger_path(dataset, 2).name in told
