"""A dataset folder: the names of its files, and ``dataset.json``, the record that lists and identifies them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from faceloom.errors import UserError
from shards.record import Record, SealedRecord
from shards.schema import BASE_LAYER
from shards.storage import read_bytes

RECORD_NAME = "dataset.json"
SHARD_FOLDER = "shards"
LEDGER_FOLDER = "ledger"


def part_name(part: int) -> str:
    """The stem shared by all files of one manifest block, ``part-00042``."""
    return f"part-{part:05d}"


def tar_path(root: Path, part: int, layer: str = BASE_LAYER) -> Path:
    """The tar that holds one layer of the kept clips of manifest block ``part``."""
    return root / SHARD_FOLDER / f"{part_name(part)}.{layer}.tar"


def index_path(root: Path, part: int, layer: str = BASE_LAYER) -> Path:
    """The index beside :func:`tar_path`."""
    return root / SHARD_FOLDER / f"{part_name(part)}.{layer}.parquet"


def ledger_path(root: Path, part: int) -> Path:
    """The ledger fragment of manifest block ``part``: written last, so its presence commits the block."""
    return root / LEDGER_FOLDER / f"{part_name(part)}.parquet"


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""In hex. Caches name files for it, so it must be no other text."""


class LayerFile(Record):
    """One tar with its index, as ``dataset.json`` lists it. ``file`` is relative to the dataset folder, and inside it."""

    part: int
    layer: str
    file: Annotated[str, StringConstraints(pattern=r"^[\w-]+/[\w-][\w.-]*\.tar$")]
    samples: int
    bytes: int
    sha256: Sha256
    index_sha256: Sha256


class ManifestSummary(Record):
    """The manifest a dataset came from: ``clips`` rows in ``blocks`` blocks of ``block_clips`` or, the last, fewer."""

    sha256: str
    clips: int
    blocks: int
    block_clips: int

    def block_rows(self, block: int) -> int:
        """The number of manifest rows in ``block``."""
        return min(self.block_clips, self.clips - block * self.block_clips)


class DatasetRecord(SealedRecord):
    """``dataset.json``. Its checksum identifies a complete dataset down to the bytes of its tars.

    ``fingerprints`` maps a group of fields to the sha256 that identifies weights, config and version which made them.
    """

    complete: bool
    config: Mapping[str, Any]
    config_fingerprint: str
    fingerprints: Mapping[str, str]
    licences: tuple[str, ...]
    manifest: ManifestSummary
    shards: tuple[LayerFile, ...] = ()
    ledger: tuple[str, ...] = ()
    """The sha256 of each block's ledger fragment, by block; empty until the run is complete."""

    @property
    def repacked(self) -> bool:
        """Whether ``faceloom shards repack`` made it: its parts are runs of samples and no blocks of a manifest."""
        return "repacked_from" in self.config

    def save(self, root: Path) -> None:
        """Write ``root/dataset.json`` atomically."""
        self.write(root / RECORD_NAME)

    @classmethod
    def load(cls, root: Path) -> "DatasetRecord":
        """Read ``root/dataset.json``.

        Raises :class:`UserError` if it is absent, of another schema version, or not as it was written.
        """
        path = root / RECORD_NAME
        try:
            data = read_bytes(path)
        except OSError as error:
            raise UserError(
                f"no readable dataset at {root}: {path}: {error.strerror}; give the folder `faceloom curate` wrote"
            ) from None
        return cls.from_bytes(data, path, "delete it and run the same `faceloom curate` command again: it is rebuilt")
