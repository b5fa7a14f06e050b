"""What a sample holds: every field's layer, type and shape, and its encoding in a shard.

A field's name is its file extension in the tar (``<clip_id>.landmarks.u16.npy``). The table below fixes the order of
the members of a sample; adding a field is adding a row. Units and coordinate frames are stated in ``docs/format.md``.

A layer is a group of fields with a tar of its own. Encoding again with another model makes another layer of the same kind,
whose name goes on after a hyphen: ``latents``, ``latents-fp32``.
"""

import io
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors

SCHEMA_VERSION = 1

FRAMES = 49
HEIGHT = 480
WIDTH = 720
FPS = 12
LATENT_FRAMES = 13
LATENT_HEIGHT = 60
LATENT_WIDTH = 90
LANDMARKS = 478
BLENDSHAPES = 52
SMIRK_PARAMETERS = 61
SMIRK_SHAPE = 300
FACE_SIZE = 512
FACE_TOKENS = 729
FACE_DIM = 1152

BASE_LAYER = "base"
LATENTS_LAYER = "latents"

CLIP_ID = re.compile(r"[0-9a-f]{16}")
LAYER_NAME = re.compile(r"[a-z]+(-[a-z0-9_-]+)?")


@dataclass(frozen=True)
class Field:
    """One row of the schema. ``dtype`` and ``shape`` are those of an array, and ``None`` for other files.

    A length of ``None`` is the encoder's to choose. numpy has no bfloat16: such an array is handled as its bits, uint16.
    An ``optional`` field is in all samples of a tar or in none.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    layer: str = BASE_LAYER
    optional: bool = False

    def fits(self, shape: tuple[int, ...] | None) -> bool:
        """Whether an array of this shape may be in the field; ``None`` is no array."""
        if self.shape is None or shape is None:
            return self.shape is shape
        return len(self.shape) == len(shape) and all(
            wanted in (None, length) for wanted, length in zip(self.shape, shape, strict=True)
        )


_LATENT = (LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH)

_TABLE = (
    Field("video.mp4"),
    Field("landmarks.u16.npy", "uint16", (FRAMES, LANDMARKS, 3)),
    Field("blendshapes.npy", "float16", (FRAMES, BLENDSHAPES)),
    Field("pose.npy", "float32", (FRAMES, 4, 4)),
    Field("smirk.npy", "float32", (FRAMES, SMIRK_PARAMETERS), optional=True),
    Field("smirk_shape.npy", "float32", (SMIRK_SHAPE,), optional=True),
    Field("smirk_crop.npy", "float32", (FRAMES, 2, 3), optional=True),
    Field("flow.npy", "float16", (LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH)),
    Field("flow_pairs.npy", "float32", (FRAMES - 1, 4)),
    Field("face.jpg"),
    Field("face_tokens.npy", "float16", (FACE_TOKENS, FACE_DIM), optional=True),
    Field("reference.jpg"),
    Field("meta.json"),
    Field("video_moments.safetensors", "bfloat16", (None, *_LATENT), LATENTS_LAYER),
    Field("landmark_latents.safetensors", "bfloat16", (None, *_LATENT), LATENTS_LAYER),
    Field("reference_moments.safetensors", "bfloat16", (None, 1, *_LATENT[1:]), LATENTS_LAYER),
)
FIELDS: dict[str, Field] = {field.name: field for field in _TABLE}

META_KEYS = (
    "clip_id",
    "dataset",
    "source_key",
    "person_id",
    "licence",
    "fps",
    "n_valid",
    "source_wh",
    "pts_s",
    "crop_xywh",
    "valid_x0x1",
    "crop_mode",
    "found",
    "landmark_backend",
    "audio",
    "reference_frame",
    "face_frame",
    "face_encoder",
    "flow",
    "statistics",
)

_BFLOAT16 = "bfloat16"
_BFLOAT16_EXPONENT = np.uint16(0x7F80)  # all ones: infinity or NaN
_TENSOR = "data"  # the name of the one tensor in a .safetensors field

_MAGIC = {".mp4": (4, b"ftyp"), ".jpg": (0, b"\xff\xd8\xff")}


def layer_fields(layer: str, present: Collection[str]) -> tuple[Field, ...]:
    """The fields of a layer in member order: all that every sample must have, and the optional ones in ``present``.

    Raises ``ValueError`` for a layer whose kind the schema does not know.
    """
    fields = tuple(field for field in _TABLE if field.layer == layer.partition("-")[0])
    if not fields or not LAYER_NAME.fullmatch(layer):
        known = ", ".join(sorted({field.layer for field in _TABLE}))
        raise ValueError(f"unknown layer {layer!r}; the schema has: {known}")
    return tuple(field for field in fields if not field.optional or field.name in present)


def encode_field(name: str, value: Any) -> bytes:
    """The bytes of a field as they go into a shard; equal values give equal bytes.

    Arrays become ``.npy`` without a cast, the bits of bfloat16 ones a ``.safetensors`` with one tensor, dictionaries
    JSON with sorted keys; encoded files (``.mp4``, ``.jpg``) pass through. Raises ``ValueError`` naming the field when dtype,
    shape, a non-finite number, a missing key of ``meta.json`` or a file's signature contradicts the schema.
    """
    field = _field(name)
    if field.dtype is not None:
        _check_array(field, value)
        if field.dtype == _BFLOAT16:
            return _write_bfloat16(np.ascontiguousarray(value))
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.ascontiguousarray(value), version=(1, 0), allow_pickle=False)
        return stream.getvalue()
    if name.endswith(".json"):
        _check_meta(name, value)
        try:
            text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
        return text.encode()
    _check_file(name, value)
    return bytes(value)


def decode_field(name: str, data: bytes) -> Any:
    """The inverse of :func:`encode_field`: an array, a dictionary, or the bytes of an encoded file.

    Raises ``ValueError`` naming the field under the same conditions, and for bytes that are not what the extension
    says. Arrays are read-only views of ``data``.
    """
    field = _field(name)
    if field.dtype is not None:
        array = _read_bfloat16(name, data) if field.dtype == _BFLOAT16 else _read_npy(name, data)
        _check_array(field, array)
        return array
    if name.endswith(".json"):
        try:
            value = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{name}: not JSON: {error}") from None
        _check_meta(name, value)
        return value
    _check_file(name, data)
    return data


def _field(name: str) -> Field:
    try:
        return FIELDS[name]
    except KeyError:
        raise ValueError(f"unknown field {name!r}; the schema has: {', '.join(FIELDS)}") from None


def _read_npy(name: str, data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"npy version {version}, expected (1, 0)")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if fortran_order or dtype.hasobject:
            raise ValueError("expected plain numbers in C order")
        return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{name}: not a usable .npy file: {error}") from None


def _write_bfloat16(bits: np.ndarray) -> bytes:
    spec = safetensors.TensorSpec(dtype=_BFLOAT16, shape=bits.shape, data_ptr=bits.ctypes.data, data_len=bits.nbytes)
    return bytes(safetensors.serialize({_TENSOR: spec}))


def _read_bfloat16(name: str, data: bytes) -> np.ndarray:
    try:
        tensors = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
        tensor = tensors.pop(_TENSOR)
        if tensors or tensor["dtype"] != "BF16":
            raise ValueError(f"expected one tensor {_TENSOR!r} of BF16")
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{name}: not a usable .safetensors file: {error}") from None
    nbytes = len(tensor["data"])
    return np.frombuffer(data, np.uint16, offset=len(data) - nbytes).reshape(tensor["shape"])


def _check_array(field: Field, value: Any) -> None:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{field.name}: expected an array, got {type(value).__name__}")
    dtype = np.dtype("uint16" if field.dtype == _BFLOAT16 else str(field.dtype))
    if value.dtype != dtype or not field.fits(value.shape):
        shape = ", ".join("any" if length is None else str(length) for length in field.shape or ())
        raise ValueError(f"{field.name}: expected {dtype} [{shape}], got {value.dtype} {list(value.shape)}")
    finite = np.isfinite(value) if value.dtype.kind == "f" else True
    if field.dtype == _BFLOAT16:
        finite = value & _BFLOAT16_EXPONENT != _BFLOAT16_EXPONENT
    if not np.all(finite):
        raise ValueError(f"{field.name}: holds a value that is not finite")


def _check_meta(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a mapping, got {type(value).__name__}")
    missing = [key for key in META_KEYS if key not in value]
    if missing:
        raise ValueError(f"{name}: lacks {', '.join(missing)}")


def _check_file(name: str, value: Any) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(f"{name}: expected bytes, got {type(value).__name__}")
    start, magic = _MAGIC[name[name.rindex(".") :]]
    if bytes(value[start : start + len(magic)]) != magic:
        raise ValueError(f"{name}: the bytes do not begin like that kind of file")
