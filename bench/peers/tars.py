"""Plain WebDataset tars with the five arrays of a sample side by side, for the loaders that read such."""

import io
import tarfile
from pathlib import Path

import numpy as np
import safetensors.torch
import samples
import torch


def write_tars(folder: Path, count: int, shards: int) -> None:
    """``part-000.tar`` …: ``<key>.<field>.npy`` for float16, ``.safetensors`` for bfloat16, as in a Faceloom dataset."""
    for shard, numbers in enumerate(samples.shards(count, shards)):
        with tarfile.open(folder / f"part-{shard:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in numbers:
                for name, bits in samples.sample_bits(number).items():
                    data = encode(name, bits)
                    member = tarfile.TarInfo(f"{samples.key(number)}.{extension(name)}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def extension(name: str) -> str:
    """What the member of a field is called after the key."""
    return f"{name}.npy" if samples.FIELDS[name].dtype == "float16" else f"{name}.safetensors"


def encode(name: str, bits: np.ndarray) -> bytes:
    """A member's data."""
    if extension(name).endswith(".safetensors"):
        return safetensors.torch.save({"data": torch.from_numpy(bits).view(torch.bfloat16)})
    stream = io.BytesIO()
    np.save(stream, bits.view(np.float16))
    return stream.getvalue()


def decode(name: str, data: bytes) -> torch.Tensor:
    """The array in a member's data, without a copy: the numbers are at its end in both kinds of file.

    This is less work than ``np.load`` and ``safetensors.torch.load``, which copy; stacking the batch copies them once.
    """
    array = samples.FIELDS[name]
    dtype = getattr(torch, array.dtype)
    return torch.frombuffer(data, dtype=dtype, offset=len(data) - array.nbytes).reshape(array.shape)
