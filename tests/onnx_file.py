"""ONNX files written by hand, so that a test of a network that only its user has needs neither it nor the package ``onnx``.

Source: onnx.proto, and protobuf's encoding specification.
"""

from collections.abc import Sequence
from pathlib import Path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims)))  # 1: float


def _integers(name: str, values: Sequence[int]) -> bytes:
    return _bytes(5, _bytes(1, name) + b"".join(_number(8, value) for value in values) + _number(20, 7))


def write_patch_means(path: Path, side: int = 112, patch: int = 28) -> Path:
    """A network that takes ``[1, 3, side, side]`` and gives the means of its patches, all channels in one row."""
    across = side // patch
    pool = _bytes(1, "image") + _bytes(2, "means") + _bytes(4, "AveragePool")
    pool += _integers("kernel_shape", [patch, patch]) + _integers("strides", [patch, patch])
    flatten = _bytes(1, "means") + _bytes(2, "row") + _bytes(4, "Flatten")
    graph = _bytes(1, pool) + _bytes(1, flatten) + _bytes(2, "patches")
    graph += _bytes(11, _tensor("image", [1, 3, side, side])) + _bytes(12, _tensor("row", [1, 3 * across**2]))
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13)))
    return path
