"""A further layer of a finished dataset: its own tars and its own record, beside a base that it never touches.

``layers/<layer>.json`` lists and identifies the tars as ``dataset.json`` does for the base, and says of which base they are.
``layers/<layer>/part-NNNNN.parquet`` says of each sample of a part whether it was encoded; it is written last and commits
the part. Samples that could not be encoded are in no tar of the layer; the others keep the order of the base.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, LayerFile, Record, part_name
from shards.schema import SCHEMA_VERSION
from shards.storage import make_folder, write_atomic

LAYERS_FOLDER = "layers"


def layer_record_path(root: Path, layer: str) -> Path:
    """The record of ``layer``."""
    return root / LAYERS_FOLDER / f"{layer}.json"


def layer_ledger_path(root: Path, layer: str, part: int) -> Path:
    """The outcomes of one part: written last, so its presence commits the part."""
    return root / LAYERS_FOLDER / layer / f"{part_name(part)}.parquet"


class LayerRecord(Record):
    """``layers/<layer>.json``: no time stamps, a checksum over its own content, equal runs write equal bytes.

    ``fingerprint`` identifies the weights, configuration and version that made the layer; ``base`` is the checksum of the
    ``dataset.json`` (:attr:`shards.dataset.DatasetRecord.checksum`) that it was made from.
    """

    schema_version: int = SCHEMA_VERSION
    layer: str
    complete: bool
    config: Mapping[str, Any]
    fingerprint: str
    base: str
    shards: tuple[LayerFile, ...] = ()
    ledger: tuple[str, ...] = ()
    """The sha256 of each part's ledger fragment, by part; empty until the run is complete."""

    @property
    def checksum(self) -> str:
        """sha256 of the content."""
        tree = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(tree, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def save(self, root: Path) -> None:
        """Write the record atomically, keys sorted."""
        make_folder((root / LAYERS_FOLDER).absolute())
        write_atomic(layer_record_path(root, self.layer), self._to_bytes())

    @classmethod
    def load(cls, root: Path, layer: str, base: DatasetRecord) -> "LayerRecord":
        """Read the record of ``layer`` of the dataset that ``base`` identifies.

        Raises :class:`UserError` if there is none, if it is not as it was written, or if it belongs to another base.
        """
        path = layer_record_path(root, layer)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
            raise UserError(
                f"{root} has no layer {layer!r} (there is: {there}); make it with: faceloom encode {root} --layer {layer}"
            ) from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        remedy = f"delete it and run the same `faceloom encode {root} --layer {layer}` command again: it is rebuilt"
        try:
            tree = json.loads(data)
            del tree["checksum"]
            record = cls.model_validate_json(json.dumps(tree))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}); {remedy}") from None
        if record._to_bytes() != data or record.layer != layer:
            raise UserError(f"{path} was changed after it was written (its checksum differs); {remedy}")
        if record.base != base.checksum:
            raise UserError(
                f"layer {layer!r} was made from another dataset (base {record.base[:12]}, {root} is "
                f"{base.checksum[:12]}); encode it again under another name"
            )
        return record

    def _to_bytes(self) -> bytes:
        tree = self.model_dump(mode="json")
        text = json.dumps(
            tree | {"checksum": self.checksum}, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
        )
        return text.encode() + b"\n"
