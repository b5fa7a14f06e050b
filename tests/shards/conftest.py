"""Small synthetic datasets that obey the schema, made with the code under test."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.dataset import DatasetRecord, ManifestSummary, ledger_path
from shards.schema import BASE_LAYER, FIELDS, META_KEYS, encode_field, layer_fields
from shards.storage import make_folder, write_atomic
from shards.writer import write_layer

BLOCK_CLIPS = 3


def clip_key(number: int) -> str:
    return hashlib.sha256(f"clip {number}".encode()).hexdigest()[:16]


def sample_values(key: str) -> dict[str, object]:
    """A schema-conforming sample whose numbers depend on the key."""
    random = np.random.default_rng(int(key, 16))
    values: dict[str, object] = {}
    for field in layer_fields(BASE_LAYER, FIELDS):
        if field.dtype is not None:
            values[field.name] = random.integers(0, 200, field.shape).astype(field.dtype)
    values["video.mp4"] = b"\0\0\0\x18ftypisom" + random.bytes(700)
    values["face.jpg"] = b"\xff\xd8\xff\xe0" + random.bytes(300)
    values["reference.jpg"] = b"\xff\xd8\xff\xe0" + random.bytes(511)
    values["meta.json"] = dict.fromkeys(META_KEYS) | {"clip_id": key}
    return values


def encoded_sample(key: str) -> tuple[str, dict[str, bytes]]:
    return key, {name: encode_field(name, value) for name, value in sample_values(key).items()}


def write_fragment(
    root: Path, part: int, outcomes: Sequence[tuple[str, str]], of_clips: Sequence[str | None] | None = None
) -> None:
    """A ledger fragment with the columns that verification reads; ``outcomes`` holds (clip id, outcome)."""
    kept = [key for key, outcome in outcomes if outcome == "kept"]
    table = pa.table(
        {
            "clip_id": pa.array([key for key, _ in outcomes], pa.string()),
            "outcome": pa.array([outcome for _, outcome in outcomes], pa.string()),
            "shard_sample": pa.array(
                [kept.index(key) if outcome == "kept" else None for key, outcome in outcomes], pa.int32()
            ),
            "of_clip": pa.array(of_clips or [None] * len(outcomes), pa.string()),
            "yaw_range_deg": pa.array([math.sin(row) for row in range(len(outcomes))], pa.float64()),
        }
    ).replace_schema_metadata({"rows": str(len(outcomes))})
    make_folder(root / "ledger")
    write_atomic(ledger_path(root, part), lambda stream: pq.write_table(table, stream, write_page_checksum=True))


def list_fragments(root: Path) -> None:
    """Have ``dataset.json`` list the ledger fragments as they are now."""
    record = DatasetRecord.load(root)
    paths = [ledger_path(root, part) for part in range(record.manifest.blocks)]
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    record.model_copy(update={"ledger": digests}).save(root)


def build_dataset(root: Path, clips: int = 8) -> Path:
    """Eight clips in blocks of three; every third clip is rejected, the last block keeps nothing."""
    root.mkdir(parents=True, exist_ok=True)
    files = []
    blocks = -(-clips // BLOCK_CLIPS)
    for part in range(blocks):
        numbers = range(part * BLOCK_CLIPS, min(clips, (part + 1) * BLOCK_CLIPS))
        outcomes = [
            (clip_key(n), "rejected" if n % BLOCK_CLIPS == 1 or part == blocks - 1 else "kept") for n in numbers
        ]
        kept = [key for key, outcome in outcomes if outcome == "kept"]
        files.append(write_layer(root, part, BASE_LAYER, map(encoded_sample, kept)))
        write_fragment(root, part, outcomes)
    DatasetRecord(
        complete=True,
        config={"flow": {"scale": 0.5}},
        config_fingerprint="c" * 64,
        fingerprints={"flow": "f" * 64},
        licences=("CC0-1.0",),
        manifest=ManifestSummary(sha256="m" * 64, clips=clips, blocks=blocks, block_clips=BLOCK_CLIPS),
        shards=tuple(files),
    ).save(root)
    list_fragments(root)
    return root


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete dataset shared by the session; a test that alters a file must put it back."""
    return build_dataset(tmp_path_factory.mktemp("dataset"))
