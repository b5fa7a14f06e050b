"""Small datasets of made-up samples, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import ledger
from curation.ledger import Decision
from curation.outcome import Kept
from curation.sources import Clip
from shards.dataset import DatasetRecord, ManifestSummary, ledger_path
from shards.schema import BASE_LAYER, FIELDS, FRAMES, META_KEYS, WIDTH, encode_field, layer_fields
from shards.storage import make_folder
from shards.writer import write_layer


def blank_sample(clip: Clip) -> dict[str, Any]:
    """Arrays of zeros, no files, and what every ``meta.json`` says."""
    values: dict[str, Any] = {
        field.name: np.zeros(field.shape, field.dtype) for field in layer_fields(BASE_LAYER, FIELDS) if field.dtype
    }
    values["meta.json"] = dict.fromkeys(META_KEYS) | {
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "source_key": clip.source_key,
        "licence": clip.licence,
        "fps": 12.0,
        "n_valid": FRAMES,
        "pts_s": [i / 12 for i in range(FRAMES)],
        "valid_x0x1": [0, WIDTH],
        "found": [True] * FRAMES,
    }
    return values


def record_of(clips: int, blocks: int = 1, **others: Any) -> DatasetRecord:
    """The record of a dataset of as many clips that says nothing but what it must, and ``others``."""
    manifest = ManifestSummary(sha256="", clips=clips, blocks=blocks, block_clips=max(1, -(-clips // blocks)))
    nothing: dict[str, Any] = {"config": {}, "config_fingerprint": "", "fingerprints": {}, "licences": ()}
    return DatasetRecord(**nothing | {"complete": True, "manifest": manifest} | others)


def write_dataset(
    root: Path, blocks: Sequence[Sequence[Decision]], samples: Mapping[Clip, Mapping[str, Any]]
) -> DatasetRecord:
    """A complete dataset of these blocks of decisions; ``samples`` has the fields of each clip that is kept."""
    make_folder(root / "shards")
    make_folder(root / "ledger")
    files = []
    for part, decisions in enumerate(blocks):
        kept = [decision.clip for decision in decisions if decision.outcome == Kept()]
        encoded = [(c.clip_id, {name: encode_field(name, v) for name, v in samples[c].items()}) for c in kept]
        files.append(write_layer(root, part, "base", encoded))
        rows = [ledger.row(d, 0 if d.outcome == Kept() else None) for d in decisions]
        pq.write_table(pa.Table.from_pylist(rows, ledger.SCHEMA), ledger_path(root, part))
    record = record_of(sum(map(len, blocks)), len(blocks), licences=("CC0",), shards=tuple(files))
    record.save(root)
    return record
