"""Does a reader that runs for weeks grow? ``python -m bench.soak [--batches 20000]``.

Reads batches of 8 over 80 shards (more than a dataset keeps open), stops and resumes every 2 000 batches, and meets a
damaged sample once an epoch. Prints resident memory, open descriptors and threads, and exits 1 if one of them is higher in
the last tenth than it ever was in the first three: memory by more than 8 MiB, the others at all.
"""

import argparse
import hashlib
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from shards.dataset import DatasetRecord, ManifestSummary
from shards.index import read_index
from shards.loader import Loader, resume
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from shards.schema import BASE_LAYER, META_KEYS, encode_field, layer_fields
from shards.writer import write_layer

SHARDS, PER_SHARD, BATCH, RESUME_EVERY = 80, 4, 8, 2_000
MEMORY_ALLOWED = 8 * 2**20
FIELDS = ["landmarks.u16.npy", "pose.npy", "meta.json", "reference.jpg"]


def main() -> None:
    """Soak, and exit 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20_000)
    batches = parser.parse_args().batches
    logging.basicConfig(level=logging.WARNING)
    memory = Path("/dev/shm")  # noqa: S108 many small reads, not a disk, are what is looked at
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        write_dataset(root)
        damage_one(root)
        rows = []
        print(f"{'batches':>8} {'samples/s':>10} {'RSS MiB':>8} {'files':>6} {'threads':>8} {'replaced':>9}")
        for done, rate, replaced in soak(root, batches):
            rss, files, threads = measure()
            rows.append((rss, files, threads))
            print(f"{done:8} {rate:10.0f} {rss / 2**20:8.1f} {files:6} {threads:8} {replaced:9}", flush=True)
    begin, end = np.array(rows[: len(rows) * 3 // 10]).max(axis=0), np.array(rows[-2:]).max(axis=0)
    grown = (end - begin > (MEMORY_ALLOWED, 0, 0)).any()
    print("grew" if grown else "flat")
    sys.exit(int(grown))


def soak(root: Path, batches: int) -> Iterator[tuple[int, float, int]]:
    """Read; yields twenty times the batches read so far, the samples a second since, and the samples replaced so far."""
    samples = ShardedDataset(root, FIELDS)
    plan = Plan([DatasetShape(samples.digest, samples.shard_sizes)], seed=0)
    state, replaced, begun = Loader([samples], plan, BATCH).state(), 0, time.monotonic()
    step = max(1, batches // 20)
    for first in range(0, batches, RESUME_EVERY):
        consumed = resume(state, plan)
        with Loader([samples], plan, BATCH, consumed=consumed, prefetch_mib=16, max_damaged_share=0.01) as loader:
            for done in range(first + 1, min(first + RESUME_EVERY, batches) + 1):
                batch = next(loader)
                assert batch["landmarks.u16.npy"].shape == (BATCH, 49, 478, 3)
                if done % step == 0:
                    del batch
                    yield done, step * BATCH / (time.monotonic() - begun), replaced + loader.replaced
                    begun = time.monotonic()
            state = loader.state()
            replaced += loader.replaced


def measure() -> tuple[int, int, int]:
    """Resident bytes, open descriptors and threads of this process."""
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def write_dataset(root: Path) -> None:
    """A complete dataset of noise."""
    random = np.random.default_rng(0)
    numbers = itertools.count()

    def sample() -> tuple[str, dict[str, bytes]]:
        key = hashlib.sha256(str(next(numbers)).encode()).hexdigest()[:16]
        values: dict[str, object] = {
            field.name: random.integers(0, 200, field.shape).astype(field.dtype)
            for field in layer_fields(BASE_LAYER, ())
            if field.dtype
        }
        values["video.mp4"] = b"\0\0\0\x18ftypisom"
        values["face.jpg"] = b"\xff\xd8\xff"
        values["reference.jpg"] = b"\xff\xd8\xff" + random.bytes(int(random.integers(20_000, 40_000)))
        values["meta.json"] = dict.fromkeys(META_KEYS) | {"clip_id": key}
        return key, {name: encode_field(name, value) for name, value in values.items()}

    files = [write_layer(root, part, BASE_LAYER, [sample() for _ in range(PER_SHARD)]) for part in range(SHARDS)]
    clips = SHARDS * PER_SHARD
    DatasetRecord(
        complete=True,
        config={},
        config_fingerprint="0" * 64,
        fingerprints={},
        licences=(),
        manifest=ManifestSummary(sha256="0" * 64, clips=clips, blocks=SHARDS, block_clips=PER_SHARD),
        shards=tuple(files),
    ).save(root)


def damage_one(root: Path) -> None:
    """Flip a byte of one array."""
    tar = root / DatasetRecord.load(root).shards[7].file
    index = read_index(tar.with_suffix(".parquet"))
    data = bytearray(tar.read_bytes())
    data[index.entry(index.keys[0], "pose.npy").offset + 500] ^= 1
    tar.write_bytes(data)


if __name__ == "__main__":
    main()
