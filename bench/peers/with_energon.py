"""megatron-energon: its index over plain tars, ``part_filter`` for a part of the fields, a shuffle buffer, its saved state.

A crude dataset with a cooker of our own, and no decoder of its: the bytes of a member become a tensor without a copy. It
streams without a border between epochs.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import samples
import tars
import torch
from measure import BATCH, SHUFFLE_BUFFER, Batch, Loader, main
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    WorkerConfig,
    basic_sample_keys,
    edataclass,
    get_savable_loader,
    get_train_dataset,
    stateless,
)
from megatron.energon.flavors import BaseWebdatasetFactory, CrudeSample, Sample


@edataclass
class Arrays(Sample):
    """A sample, or a batch of them."""

    arrays: dict[str, torch.Tensor]


@stateless
def cook(sample: CrudeSample) -> Arrays:
    """Decode the members that were read."""
    names = (name for name in samples.FIELDS if tars.extension(name) in sample)
    arrays = {name: tars.decode(name, sample[tars.extension(name)]) for name in names}
    return Arrays(**basic_sample_keys(sample), arrays=arrays)


class Encoder(DefaultTaskEncoder[Any, Any, Any, Any]):
    """Cooks; the default stacks."""

    cookers = (Cooker(cook),)
    decoder = None


def write(folder: Path, count: int, shards: int) -> None:
    """The tars, their index, and a description of the dataset for either choice of fields."""
    tars.write_tars(folder, count, shards)
    names = [path.name for path in sorted(folder.glob("*.tar"))]
    BaseWebdatasetFactory.prepare_dataset(folder, names, split_parts_ratio=[("train", 1.0)], workers=1)
    for fields in (tuple(samples.FIELDS), samples.TWO):
        description = {
            "__module__": "megatron.energon",
            "__class__": "CrudeWebdataset",
            "part_filter": [tars.extension(name) for name in fields],
        }
        (folder / ".nv-meta" / description_name(fields)).write_text(json.dumps(description))  # JSON is YAML


def description_name(fields: Sequence[str]) -> str:
    """The file that describes the dataset with these fields."""
    return f"dataset-{len(fields)}.yaml"


def open_loader(folder: Path, fields: Sequence[str], state: Any) -> Loader:
    """Its savable loader without worker processes."""
    dataset = get_train_dataset(
        folder,
        dataset_config=description_name(fields),
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=BATCH,
        shuffle_buffer_size=SHUFFLE_BUFFER,
        max_samples_per_sequence=SHUFFLE_BUFFER,
        task_encoder=Encoder(),
    )
    loader = get_savable_loader(dataset, watchdog_timeout_seconds=None)
    if state is not None:
        loader.restore_state_rank(state)

    def batches() -> Iterator[Batch]:
        for batch in loader:
            yield batch.__key__, batch.arrays

    return Loader(batches, loader.save_state_rank)


if __name__ == "__main__":
    main(write, open_loader)
