"""mosaicml-streaming: MDS shards of its own format, read in place, shuffled by its default algorithm, its saved state.

Its arrays know no bfloat16, so that those go in as their bits. A sample is read and decoded whole: selecting fields selects
what is stacked.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import samples
import streaming
import torch
from measure import BATCH, SEED, Batch, Loader, main
from torch.utils.data import default_collate


def write(folder: Path, count: int, shards: int) -> None:
    """As many samples a shard; shards are cut by size, so that its limit is set above what they hold."""
    streaming.base.util.clean_stale_shared_memory()  # left by processes that were killed; a reader would refuse to start
    columns = {"key": "str"} | {
        name: f"ndarray:uint16:{','.join(map(str, array.shape))}" for name, array in samples.FIELDS.items()
    }
    sample_bytes = sum(array.nbytes for array in samples.FIELDS.values())
    limit = int((-(-count // shards) + 0.5) * sample_bytes)
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=limit) as out:
        for number in range(count):
            out.write({"key": samples.key(number), **samples.sample_bits(number)})


def open_loader(folder: Path, fields: Sequence[str], state: Any) -> Loader:
    """Its own data loader without worker processes; its threads prepare shards beside."""

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        return default_collate([select(item) for item in items])

    def select(item: dict[str, Any]) -> dict[str, Any]:
        return {"key": item["key"], **{name: tensor(name, item[name]) for name in fields}}

    dataset = streaming.StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=SEED, batch_size=BATCH)
    loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=collate)
    if state is not None:
        loader.load_state_dict(state)

    def batches() -> Iterator[Batch]:
        while True:
            for batch in loader:
                yield batch.pop("key"), batch

    return Loader(batches, loader.state_dict)


def tensor(name: str, bits: np.ndarray) -> torch.Tensor:
    """A decoded array as what it stands for, without a copy."""
    return torch.from_numpy(bits).view(getattr(torch, samples.FIELDS[name].dtype))


if __name__ == "__main__":
    main(write, open_loader)
