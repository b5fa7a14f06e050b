"""Ours: a dataset as ``faceloom curate`` and ``faceloom encode`` leave it, read by ``shards.loader``.

Two of the arrays lie in the base beside other fields that nobody reads here (left empty of content), three in the latents
layer. The threads of the loader are set by ``THREADS``, and are the only difference to ``with_faceloom_1.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import samples
from measure import BATCH, SEED, Batch, Loader, main

from shards.dataset import DatasetRecord, ManifestSummary
from shards.layers import LayerRecord
from shards.loader import Loader as ShardLoader
from shards.loader import resume
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from shards.schema import BASE_LAYER, LATENTS_LAYER, META_KEYS, encode_field, layer_fields
from shards.writer import write_layer

THREADS = 2
FINGERPRINT = "b" * 64
OPTIONAL = ("face_tokens.npy",)
FILES: dict[str, bytes] = {".mp4": b"\0\0\0\x08ftyp", ".jpg": b"\xff\xd8\xff"}


def write(folder: Path, count: int, shards: int) -> None:
    """The tars and indexes of both layers, and their records."""
    parts = list(samples.shards(count, shards))
    summary = ManifestSummary(sha256="a" * 64, clips=count, blocks=shards, block_clips=len(parts[0]))
    base = DatasetRecord(
        complete=True,
        config={},
        config_fingerprint=FINGERPRINT,
        fingerprints={"bench": FINGERPRINT},
        licences=("none",),
        manifest=summary,
        shards=tuple(write_part(folder, part, BASE_LAYER, numbers) for part, numbers in enumerate(parts)),
    )
    base.save(folder)
    LayerRecord(
        layer=LATENTS_LAYER,
        complete=True,
        config={},
        fingerprint=FINGERPRINT,
        base=base.checksum,
        shards=tuple(write_part(folder, part, LATENTS_LAYER, numbers) for part, numbers in enumerate(parts)),
    ).save(folder)


def write_part(folder: Path, part: int, layer: str, numbers: Sequence[int]) -> Any:
    """One tar with its index."""
    return write_layer(folder, part, layer, ((samples.key(number), encoded(number, layer)) for number in numbers))


def encoded(number: int, layer: str) -> Mapping[str, bytes]:
    """The fields of a sample in a layer, as they go into the tar."""
    given = {field_name(name): bits for name, bits in samples.sample_bits(number).items()}
    result = {}
    for field in layer_fields(layer, OPTIONAL):
        if field.name == "meta.json":
            value: Any = dict.fromkeys(META_KEYS) | {"clip_id": samples.key(number)}
        elif field.dtype is None:
            value = FILES[Path(field.name).suffix]
        elif field.name in given:
            value = given[field.name].view(np.uint16 if field.dtype == "bfloat16" else field.dtype)
        else:
            value = np.zeros([length or 1 for length in field.shape or ()], field.dtype)
        result[field.name] = encode_field(field.name, value)
    return result


def field_name(name: str) -> str:
    """What the schema calls an array of the samples."""
    return f"{name}.npy" if samples.FIELDS[name].dtype == "float16" else f"{name}.safetensors"


def asked_name(name: str) -> str:
    """What the reader is asked for."""
    layer = "" if samples.FIELDS[name].dtype == "float16" else f"{LATENTS_LAYER}/"
    return layer + field_name(name)


def open_loader(folder: Path, fields: Sequence[str], state: Any, threads: int = THREADS) -> Loader:
    """The loader of one rank; its state is the plan's digest, the seed and the number of positions consumed."""
    dataset = ShardedDataset(folder, [asked_name(name) for name in fields])
    plan = Plan([DatasetShape(dataset.digest, dataset.shard_sizes)], SEED)
    consumed = resume(state, plan) if state else 0
    loader = ShardLoader([dataset], plan, BATCH, consumed=consumed, threads=threads)

    def batches() -> Iterator[Batch]:
        for batch in loader:
            yield batch["__key__"], {name: batch[asked_name(name)] for name in fields}

    return Loader(batches, loader.state, loader.close)


if __name__ == "__main__":
    main(write, open_loader)
