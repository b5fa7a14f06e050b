"""A further layer of a finished dataset: its own tars and its own record, beside a base that it never touches.

``layers/<layer>.json`` lists and identifies the tars as ``dataset.json`` does for the base, and says of which base they are.
``layers/<layer>/part-NNNNN.parquet`` says of each sample of a part whether it was encoded; it is written last and commits
the part. Samples that could not be encoded are in no tar of the layer; the others keep the order of the base.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faceloom.errors import UserError
from faceloom.fingerprint import fingerprint
from shards.dataset import DatasetRecord, LayerFile, part_name
from shards.record import SealedRecord
from shards.storage import make_folder, read_bytes

LAYERS_FOLDER = "layers"


def layer_record_path(root: Path, layer: str) -> Path:
    """The record of ``layer``."""
    return root / LAYERS_FOLDER / f"{layer}.json"


def layer_ledger_path(root: Path, layer: str, part: int) -> Path:
    """The outcomes of one part: written last, so its presence commits the part."""
    return root / LAYERS_FOLDER / layer / f"{part_name(part)}.parquet"


def layer_names(root: Path) -> list[str]:
    """The layers that have a record, complete or not, by name."""
    return sorted(path.stem for path in (root / LAYERS_FOLDER).glob("*.json"))


class LayerRecord(SealedRecord):
    """``layers/<layer>.json``.

    ``fingerprint`` identifies the weights, configuration and version that made the layer; ``base`` is the checksum of the
    ``dataset.json`` that it was made from.
    """

    layer: str
    complete: bool
    config: Mapping[str, Any]
    fingerprint: str
    base: str
    shards: tuple[LayerFile, ...] = ()
    ledger: tuple[str, ...] = ()
    """The sha256 of each part's ledger fragment, by part; empty until the run is complete."""

    @property
    def run(self) -> str:
        """What made the layer and of which base: the ``run`` in the metadata of its ledger fragments."""
        return fingerprint(layer=self.fingerprint, base=self.base)

    def save(self, root: Path) -> None:
        """Write the record atomically."""
        make_folder((root / LAYERS_FOLDER).absolute())
        self.write(layer_record_path(root, self.layer))

    @classmethod
    def load(cls, root: Path, layer: str, base: DatasetRecord) -> "LayerRecord":
        """Read the record of ``layer`` of the dataset that ``base`` identifies.

        Raises :class:`UserError` if there is none, if it is not as it was written, or if it belongs to another base.
        """
        path = layer_record_path(root, layer)
        command = f"faceloom encode {root} --layer {layer}"
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            there = ", ".join(layer_names(root)) or "none"
            raise UserError(f"{root} has no layer {layer!r} (there is: {there}); make it with: {command}") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        remedy = f"delete it and run the same `{command}` command again: it is rebuilt"
        record = cls.from_bytes(data, path, remedy)
        if record.layer != layer:
            raise UserError(f"{path} is the record of layer {record.layer!r}; {remedy}")
        if record.base != base.checksum:
            raise UserError(
                f"layer {layer!r} was made from another dataset (base {record.base[:12]}, {root} is "
                f"{base.checksum[:12]}); encode it again under another name"
            )
        return record
