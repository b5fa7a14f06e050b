"""A dataset with a latents layer, smaller than real ones where the schema leaves the size open."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset import DatasetRecord
from shards.index import read_index
from shards.layers import LayerRecord, layer_ledger_path
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
        clips = read_index(root / shard.file.replace(".tar", ".parquet")).keys
        samples = (
            (key, {name: encode_field(name, bits) for name, bits in latent_values(key, layer).items()})
            for key in clips
            if key not in failed
        )
        shards.append(write_layer(root, shard.part, layer, samples))
        write_outcomes(root, layer, shard.part, [(key, "failed" if key in failed else "encoded") for key in clips])
    LayerRecord(
        layer=layer,
        complete=True,
        config={"codec": "noise"},
        fingerprint=fingerprint,
        base=base.checksum,
        shards=tuple(shards),
    ).save(root)
    list_outcomes(root, layer)
    return root


def write_outcomes(root: Path, layer: str, part: int, outcomes: Sequence[tuple[str, str]]) -> None:
    """The ledger fragment of a layer; ``outcomes`` holds (clip id, outcome)."""
    encoded = [key for key, outcome in outcomes if outcome == "encoded"]
    rows = [
        {
            "clip_id": key,
            "outcome": outcome,
            "stage": None if outcome == "encoded" else "encode",
            "error": None if outcome == "encoded" else "CodecError",
            "message": None,
            "shard_sample": encoded.index(key) if outcome == "encoded" else None,
        }
        for key, outcome in outcomes
    ]
    schema = pa.schema(
        [(name, pa.string()) for name in ("clip_id", "outcome", "stage", "error", "message")]
        + [("shard_sample", pa.int32())],
        metadata={"rows": str(len(rows)), "run": "e" * 64},
    )
    path = layer_ledger_path(root, layer, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, write_page_checksum=True)


def list_outcomes(root: Path, layer: str) -> None:
    """Have the record of ``layer`` list its ledger fragments as they are now."""
    base = DatasetRecord.load(root)
    paths = [layer_ledger_path(root, layer, part) for part in range(base.manifest.blocks)]
    ledger = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    LayerRecord.load(root, layer, base).model_copy(update={"ledger": ledger}).save(root)
