"""A dataset folder: the names of its files, and ``dataset.json``, the record that lists and identifies them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from faceloom.errors import UserError
from shards.schema import BASE_LAYER, SCHEMA_VERSION
from shards.storage import write_atomic

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


class Record(BaseModel):
    """A frozen, strict part of a JSON record."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LayerFile(Record):
    """One tar with its index, as ``dataset.json`` lists it. ``file`` is relative to the dataset folder."""

    part: int
    layer: str
    file: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str


class ManifestSummary(Record):
    """The manifest a dataset came from: ``clips`` rows in ``blocks`` blocks of ``block_clips`` or, the last, fewer."""

    sha256: str
    clips: int
    blocks: int
    block_clips: int

    def block_rows(self, block: int) -> int:
        """The number of manifest rows in ``block``."""
        return min(self.block_clips, self.clips - block * self.block_clips)


class DatasetRecord(Record):
    """``dataset.json``. It holds no time stamp, so that equal runs write equal bytes.

    ``fingerprints`` maps a group of fields to the sha256 that identifies weights, config and version which made them.
    The file also carries a checksum of its own content, which :meth:`load` requires.
    """

    schema_version: int = SCHEMA_VERSION
    complete: bool
    config: Mapping[str, Any]
    config_fingerprint: str
    fingerprints: Mapping[str, str]
    licences: tuple[str, ...]
    manifest: ManifestSummary
    shards: tuple[LayerFile, ...] = ()
    ledger: tuple[str, ...] = ()
    """The sha256 of each block's ledger fragment, by block; empty until the run is complete."""

    def save(self, root: Path) -> None:
        """Write ``root/dataset.json`` atomically, keys sorted."""
        write_atomic(root / RECORD_NAME, self._to_bytes())

    @classmethod
    def load(cls, root: Path) -> "DatasetRecord":
        """Read ``root/dataset.json``.

        Raises :class:`UserError` if it is absent, of another schema version, or not as it was written.
        """
        path = root / RECORD_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"no readable dataset at {root}: {path}: {error.strerror}; give the folder `faceloom curate` wrote"
            ) from None
        remedy = "delete it and run the same `faceloom curate` command again: it is rebuilt"
        try:
            tree = json.loads(data)
            version = tree.pop("schema_version")
            del tree["checksum"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from None
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, this Faceloom reads version {SCHEMA_VERSION}")
        try:
            record = cls.model_validate_json(json.dumps(tree | {"schema_version": version}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise UserError(f"{path} is damaged ({where}: {first['msg']}); {remedy}") from None
        if record._to_bytes() != data:
            raise UserError(f"{path} was changed after it was written (its checksum differs); {remedy}")
        return record

    @property
    def checksum(self) -> str:
        """sha256 of the content: identifies a complete dataset down to the bytes of its tars."""
        tree = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(tree, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def _to_bytes(self) -> bytes:
        tree = self.model_dump(mode="json")
        text = json.dumps(
            tree | {"checksum": self.checksum}, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
        )
        return text.encode() + b"\n"
