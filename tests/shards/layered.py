"""A dataset with a latents layer, smaller than real ones where the schema leaves the size open."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from shards.dataset import DatasetRecord
from shards.index import read_index
from shards.layers import LayerRecord
from shards.schema import LATENTS_LAYER, encode_field, layer_fields
from shards.writer import write_layer

CHANNELS = 2


def latent_values(key: str, layer: str) -> dict[str, np.ndarray]:
    """bfloat16 bits that depend on clip and layer."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{key} {layer}".encode()).digest()))
    return {
        field.name: random.integers(0, 0x7F00, [length or CHANNELS for length in field.shape]).astype(np.uint16)
        for field in layer_fields(LATENTS_LAYER, ())
    }


def add_latents(
    root: Path, layer: str = LATENTS_LAYER, failed: Collection[str] = (), fingerprint: str = "e" * 64
) -> Path:
    """Give the dataset at ``root`` a complete layer without the clips in ``failed``."""
    base = DatasetRecord.load(root)
    shards = []
    for shard in base.shards:
        keys = [key for key in read_index(root / shard.file.replace(".tar", ".parquet")).keys if key not in failed]
        samples = (
            (key, {name: encode_field(name, bits) for name, bits in latent_values(key, layer).items()}) for key in keys
        )
        shards.append(write_layer(root, shard.part, layer, samples))
    LayerRecord(
        layer=layer,
        complete=True,
        config={"codec": "noise"},
        fingerprint=fingerprint,
        base=base.checksum,
        shards=tuple(shards),
    ).save(root)
    return root
