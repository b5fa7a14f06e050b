"""The files of a dataset wherever it lies: a folder of this machine, or any fsspec URL through a cache."""

import hashlib
import os
import tempfile
from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from faceloom.errors import UserError
from shards.cache import ShardCache
from shards.dataset import RECORD_NAME, DatasetRecord, LayerFile
from shards.index import DamageError
from shards.layers import LAYERS_FOLDER, LayerRecord, layer_record_path
from shards.schema import BASE_LAYER
from shards.storage import make_folder

_FILE = "file://"


class DatasetFiles:
    """The files of the dataset at ``root``, all of them by way of ``cache`` if there is one.

    Raises :class:`UserError` for a root that is not on this machine without a cache.
    """

    def __init__(self, root: Path | str, cache: ShardCache | None) -> None:
        self.root = str(root).removeprefix(_FILE)
        self.cache = cache
        if cache is None and "://" in self.root:
            raise UserError(f"{root} is not on this machine; to read it, give the dataset a cache: a folder and a size")

    def name(self, file: str) -> str:
        """``file`` as a message names it."""
        return f"{self.root.rstrip('/')}/{file}"

    def open(self, file: str, sha256: str) -> int:
        """A descriptor of ``file``, the caller's to close. Raises :class:`DamageError` if it is not there, and OSError
        as the system does if the machine will not give it: no descriptor left, no permission.
        """
        if self.cache is not None:
            return self.cache.open(self.name(file), sha256)
        try:
            return os.open(self.name(file), os.O_RDONLY)
        except FileNotFoundError as error:
            raise DamageError(f"{self.name(file)}: missing") from error

    def read_index(self, layer: LayerFile) -> bytes:
        """The index of a tar, which must be the one that the record lists; :class:`DamageError` if it is not."""
        file = index_of(layer)
        data = self._read(file, layer.index_sha256)
        if hashlib.sha256(data).hexdigest() != layer.index_sha256 and self.cache is not None:
            self.cache.discard(layer.index_sha256)
            data = self._read(file, layer.index_sha256)
        if hashlib.sha256(data).hexdigest() != layer.index_sha256:
            raise DamageError(f"{self.name(file)}: not the index that the dataset lists (its sha256 differs)")
        return data

    def load_records(self, layers: list[str]) -> tuple[DatasetRecord, dict[str, LayerRecord]]:
        """The record of the dataset, and those of ``layers`` other than the base.

        Raises :class:`UserError` if one is absent, damaged or of another dataset.
        """
        layers = [layer for layer in layers if layer != BASE_LAYER]
        if "://" not in self.root:
            return _load_records(Path(self.root), layers)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_folder(folder / LAYERS_FOLDER)
            filesystem, path = fsspec.core.url_to_fs(self.root)
            for file in (folder / RECORD_NAME, *(layer_record_path(folder, layer) for layer in layers)):
                try:
                    file.write_bytes(filesystem.cat_file(f"{path}/{file.relative_to(folder)}"))
                except FileNotFoundError:
                    continue  # the message for it is the same as for a local dataset
                except Exception as error:  # every fsspec backend has exceptions of its own
                    raise UserError(f"cannot read {self.name(str(file.relative_to(folder)))}: {error}") from error
            try:
                return _load_records(folder, layers)
            except UserError as error:
                raise UserError(str(error).replace(name, self.root)) from None

    def _read(self, file: str, sha256: str) -> bytes:
        with os.fdopen(self.open(file, sha256), "rb") as stream:
            return stream.read()


def index_of(layer: LayerFile) -> str:
    """The index beside a tar, relative to the dataset as ``layer.file`` is."""
    return layer.file.removesuffix(".tar") + ".parquet"


def _load_records(root: Path, layers: list[str]) -> tuple[DatasetRecord, dict[str, LayerRecord]]:
    base = DatasetRecord.load(root)
    return base, {layer: LayerRecord.load(root, layer, base) for layer in layers}
