"""litdata: chunks of its own format, read in place (local, mapped into memory by its defaults), shuffled, any world size.

A sample is one item, so that selecting fields selects what is stacked, by the ``transform`` it offers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import litdata
import samples
import torch
from measure import BATCH, SEED, Batch, Loader, main


def item(number: int) -> dict[str, Any]:
    """A sample as tensors; litdata cannot store bfloat16, so that the bits go in as another type of two bytes."""
    arrays = {name: torch.from_numpy(bits).view(torch.float16) for name, bits in samples.sample_bits(number).items()}
    return {"key": samples.key(number), **arrays}


def write(folder: Path, count: int, shards: int) -> None:
    """One chunk a shard."""
    litdata.optimize(item, list(range(count)), output_dir=str(folder), chunk_size=-(-count // shards), num_workers=1)


def open_loader(folder: Path, fields: Sequence[str], state: Any) -> Loader:
    """Its own data loader without worker processes; its thread prepares chunks beside."""

    def select(sample: dict[str, Any]) -> dict[str, Any]:
        arrays = {name: sample[name].view(getattr(torch, samples.FIELDS[name].dtype)) for name in fields}
        return {"key": sample["key"], **arrays}

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, drop_last=False, seed=SEED, transform=select)
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)
    if state is not None:
        loader.load_state_dict(state)

    def batches() -> Iterator[Batch]:
        while True:
            for batch in loader:
                yield batch.pop("key"), batch

    return Loader(batches, loader.state_dict)


if __name__ == "__main__":
    main(write, open_loader)
