"""webdataset: shard shuffle, a shuffle buffer, ``select_files`` for a part of the fields. It has no state to resume from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tars
import webdataset
from measure import BATCH, SEED, SHUFFLE_BUFFER, Batch, Loader, main
from torch.utils.data import default_collate


def open_loader(folder: Path, fields: Sequence[str], _state: Any) -> Loader:
    """The tars in shuffled order, members decoded without a copy, batches stacked by torch's collation."""
    extensions = {tars.extension(name): name for name in fields}

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        arrays = {name: tars.decode(name, sample[extension]) for extension, name in extensions.items()}
        return {"__key__": sample["__key__"], **arrays}

    pipeline = (
        webdataset.WebDataset(
            [str(path) for path in sorted(folder.glob("*.tar"))],
            shardshuffle=100,
            seed=SEED,
            select_files=lambda name: name.partition(".")[2] in extensions,
        )
        .shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER)
        .map(decode)
        .batched(BATCH, collation_fn=default_collate, partial=False)
    )

    def batches() -> Iterator[Batch]:
        while True:
            for batch in pipeline:
                yield batch.pop("__key__"), batch

    return Loader(batches)


if __name__ == "__main__":
    main(tars.write_tars, open_loader)
