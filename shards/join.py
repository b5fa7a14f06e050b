"""Which samples a reader sees: those that every layer it reads from holds, joined by clip id within a part."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, LayerFile, part_name
from shards.files import DatasetFiles, index_of
from shards.index import DamageError
from shards.layers import LayerRecord
from shards.rows import LayerRows, parse_rows
from shards.schema import BASE_LAYER, FIELDS, layer_fields


@dataclass(frozen=True)
class FieldName:
    """A field as a reader asks for it: ``flow.npy`` of the base, ``latents/video_moments.safetensors`` of a layer."""

    layer: str
    field: str

    @classmethod
    def parse(cls, text: str) -> "FieldName":
        """Raises :class:`UserError` naming what there is if the schema has no such layer or field."""
        layer, _, field = text.rpartition("/")
        layer = layer or BASE_LAYER
        try:
            known = [known.name for known in layer_fields(layer, FIELDS)]
        except ValueError as error:
            raise UserError(f"field {text!r}: {error}") from None
        if field not in known:
            raise UserError(f"field {text!r}: layer {layer!r} has no such field; it has: {', '.join(known)}")
        return cls(layer, field)


@dataclass(frozen=True)
class Part:
    """The tars of one part that a reader reads, by layer, and the tar of the base, which it may not read."""

    files: Mapping[str, LayerFile]
    base: LayerFile

    @property
    def partial(self) -> list[str]:
        """The layers that lack samples of the base."""
        return [layer for layer, file in self.files.items() if file.samples < self.base.samples]


@dataclass(frozen=True)
class Join:
    """The parts of a dataset as seen through some of its layers.

    ``sizes`` are the samples of each part that all the layers hold. They follow from the records alone, whatever has become
    of the files since; but where two layers each lack samples of a part, its indexes have to be read.
    """

    files: DatasetFiles
    layers: tuple[str, ...]
    digest: str
    parts: tuple[Part, ...]
    sizes: tuple[int, ...]

    @classmethod
    def load(cls, files: DatasetFiles, layers: Sequence[str], expect: Mapping[str, str]) -> "Join":
        """Read and check the records.

        Raises :class:`UserError` if the base or a layer is absent, damaged, incomplete, of another dataset, or has another
        fingerprint than the one expected of it, and :class:`DamageError` if an index that is needed is not what was written.
        """
        base, others = files.load_records(list(layers))
        if not base.complete:
            raise UserError(f"{files.root} is not complete; run the same `faceloom curate` command again to finish it")
        for layer, record in others.items():
            if not record.complete:
                raise UserError(
                    f"layer {layer!r} of {files.root} is not complete; run the same `faceloom encode` command again"
                )
        fingerprints = {BASE_LAYER: base.config_fingerprint} | {
            name: layer.fingerprint for name, layer in others.items()
        }
        for layer in expect:
            if layer not in layers:
                raise UserError(f"a fingerprint is expected of layer {layer!r}, but none of the fields is in it")
        for layer in layers:
            if expect.get(layer, fingerprints[layer]) != fingerprints[layer]:
                raise UserError(
                    f"layer {layer!r} of {files.root} has the fingerprint {fingerprints[layer]}, and {expect[layer]} is "
                    f"expected: it was made with other weights or another configuration; read it with what it was made with, "
                    f"or encode it again under another name"
                )
        parts = tuple(_parts(files, layers, base, others))
        digest = hashlib.sha256(
            json.dumps([base.checksum, sorted((name, layer.checksum) for name, layer in others.items())]).encode()
        ).hexdigest()
        join = cls(files, tuple(layers), digest, parts, ())
        return cls(files, tuple(layers), digest, parts, tuple(join._size(part) for part in parts))

    @property
    def excluded_count(self) -> int:
        """How many samples of the base one of the layers lacks."""
        return sum(part.base.samples for part in self.parts) - sum(self.sizes)

    def excluded(self) -> Iterator[tuple[str, str]]:
        """Those samples: clip id and the first layer that lacks it. Reads the indexes of their parts."""
        for part in self.parts:
            if part.partial:
                there = {layer: set(self.rows(part.files[layer]).keys) for layer in part.partial}
                for key in self.rows(part.base).keys:
                    lacking = [layer for layer in part.partial if key not in there[layer]]
                    if lacking:
                        yield key, lacking[0]

    def rows(self, file: LayerFile, fields: Sequence[str] = ()) -> LayerRows:
        """The clip ids of a tar and where ``fields`` lie in it.

        Raises :class:`DamageError` if its index is not what was written, and :class:`UserError` if it holds no such field.
        """
        data = self.files.read_index(file)
        name = self.files.name(index_of(file))
        try:
            rows = parse_rows(data, fields)
        except KeyError as error:
            raise UserError(f"{name}: its samples have no field {error.args[0]!r}") from None
        if len(rows.keys) != file.samples:
            raise DamageError(f"{name}: it has {len(rows.keys)} samples, the dataset lists {file.samples}")
        return rows

    def _size(self, part: Part) -> int:
        if len(part.partial) > 1:
            return len(shared_keys([self.rows(file) for file in part.files.values()]))
        return min(file.samples for file in part.files.values())


def shared_keys(layers: Sequence[LayerRows]) -> tuple[str, ...]:
    """The clip ids that all ``layers`` hold, in their order."""
    first, *others = layers
    if all(other.keys == first.keys for other in others):
        return first.keys
    shared = set(first.keys).intersection(*(other.keys for other in others))
    return tuple(key for key in first.keys if key in shared)


def _parts(
    files: DatasetFiles, layers: Sequence[str], base: DatasetRecord, others: Mapping[str, LayerRecord]
) -> Iterator[Part]:
    of_layer = {name: {file.part: file for file in layer.shards} for name, layer in others.items()}
    of_layer[BASE_LAYER] = {file.part: file for file in base.shards if file.layer == BASE_LAYER}
    for part, file in sorted(of_layer[BASE_LAYER].items()):
        for layer in layers:
            if part not in of_layer[layer]:
                raise UserError(
                    f"layer {layer!r} of {files.root} does not list {part_name(part)}; see: faceloom verify"
                )
        yield Part({layer: of_layer[layer][part] for layer in layers}, file)
