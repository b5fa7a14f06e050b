"""The floor: the same bytes of our tars by bare ``os.preadv`` into the same buffers again and again, one thread.

Nothing is checked, allocated or decoded; the order is a permutation of all samples, and the tars are all open. ``--folder``
is a folder that ``with_faceloom.py`` wrote. ``with_preadv_checked.py`` is what no reader of ours can beat.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import samples
import torch
from measure import BATCH, SEED, Batch, Loader, main
from with_faceloom import field_name

from shards.dataset import DatasetRecord, index_path
from shards.index import read_index
from shards.layers import LayerRecord
from shards.schema import LATENTS_LAYER


def open_loader(
    folder: Path, fields: Sequence[str], _state: Any, *, batches_held: int = 1, checked: bool = False
) -> Loader:
    """All tars open, all offsets known. The memory of ``batches_held`` batches is used in turn."""
    names = {field_name(name): name for name in fields}
    base = DatasetRecord.load(folder)
    reads: dict[str, list[tuple[str, int, int]]] = {}
    for file in (*base.shards, *LayerRecord.load(folder, LATENTS_LAYER, base).shards):
        descriptor = os.open(folder / file.file, os.O_RDONLY)
        for entry in read_index(index_path(folder, file.part, file.layer)).entries:
            if entry.field in names:
                name = names[entry.field]
                offset = entry.offset + entry.nbytes - samples.FIELDS[name].nbytes
                reads.setdefault(entry.key, []).append((name, descriptor, offset))
    held = [
        {
            name: torch.empty((BATCH, *samples.FIELDS[name].shape), dtype=getattr(torch, samples.FIELDS[name].dtype))
            for name in fields
        }
        for _ in range(batches_held)
    ]
    keys = np.array(list(reads))

    def batches() -> Iterator[Batch]:
        random = np.random.default_rng(SEED)
        memory = itertools.cycle(held)
        while True:
            for batch in random.permutation(keys).reshape(-1, BATCH).tolist():
                arrays = next(memory)
                rows = {name: array.view(torch.uint8).numpy().reshape(BATCH, -1) for name, array in arrays.items()}
                for row, key in enumerate(batch):
                    for name, descriptor, offset in reads[key]:
                        target = rows[name][row]
                        if os.preadv(descriptor, [target.data], offset) != samples.FIELDS[name].nbytes:
                            raise SystemExit(f"{key}.{name}: cut short")
                        if checked:
                            google_crc32c.value(target)
                yield batch, arrays

    return Loader(batches)


def write(_folder: Path, _count: int, _shards: int) -> None:
    """Nothing: it reads what ``with_faceloom.py`` wrote."""
    raise SystemExit("give it the folder of with_faceloom.py")


if __name__ == "__main__":
    main(write, open_loader)
