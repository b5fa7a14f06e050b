"""The samples of the reader bench: the five arrays that a step of SkyReels-A1's training reads, 6.5 MB a sample.

Every format is written from these numbers, made anew in each environment: numpy only, and only what no release of it may
change (raw output of a bit generator).
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

_TOP_EXPONENT_BIT = np.uint16(1 << 14)  # of bfloat16 and float16 alike: without it, a number is finite and below 2


@dataclass(frozen=True)
class Array:
    """A field: the name of its dtype (in numpy's or torch's words) and its shape. Both dtypes take two bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return 2 * prod(self.shape)


FIELDS: dict[str, Array] = {
    "video_moments": Array("bfloat16", (16, 13, 60, 90)),
    "landmark_latents": Array("bfloat16", (16, 13, 60, 90)),
    "reference_moments": Array("bfloat16", (16, 1, 60, 90)),
    "face_tokens": Array("float16", (729, 1152)),
    "flow": Array("float16", (13, 60, 90)),
}
TWO: tuple[str, ...] = ("face_tokens", "flow")
"""The fields that the runs on 2 of 5 read."""


def key(sample: int) -> str:
    """The name of a sample, in the form of a clip id."""
    return f"{sample:016x}"


def sample_bits(sample: int) -> dict[str, NDArray[np.uint16]]:
    """The five arrays of a sample as the bits of their numbers, all finite; no two samples are alike."""
    words = np.random.Philox(key=sample).random_raw(-(-sum(array.nbytes for array in FIELDS.values()) // 8))
    bits = words.view(np.uint16) & ~_TOP_EXPONENT_BIT
    ends = np.cumsum([prod(array.shape) for array in FIELDS.values()])
    return {
        name: part.reshape(array.shape)
        for (name, array), part in zip(FIELDS.items(), np.split(bits, ends), strict=False)
    }


def checksums(arrays: Mapping[str, NDArray[np.uint16]]) -> dict[str, int]:
    """The crc32 of each array's bytes."""
    return {name: zlib.crc32(np.ascontiguousarray(bits)) for name, bits in arrays.items()}


def shards(samples: int, count: int) -> Iterator[Sequence[int]]:
    """The sample numbers of each of ``count`` shards: consecutive, and as many in each as can be."""
    for numbers in np.array_split(np.arange(samples), count):
        yield numbers.tolist()
