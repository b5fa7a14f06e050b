"""Numbers and texts as text inside HTML: deflated, base64; what ``assets/unpack.js`` reads back, bit for bit."""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def pack_columns(columns: Sequence[npt.NDArray[np.float64]]) -> str:
    """Columns of one length. A column's bytes are grouped by significance: neighbours then resemble each other."""
    grouped = [column.astype("<f8").view(np.uint8).reshape(-1, 8).T.tobytes() for column in columns]
    return _pack(b"".join(grouped))


def pack_json(value: Any) -> str:
    """Anything that JSON can hold; read on demand, and so not parsed with the page."""
    return _pack(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
