"""The landmark record of a clip, how it is stored, and the changes of frame it goes through.

Landmark coordinates follow MediaPipe: x in units of the frame's width and y of its height, both from the top left
corner; z in units of the frame's *width*, away from the camera, zero near the head's centre. Pixel coordinates are
continuous: pixel i covers [i, i + 1), so a resize is a plain multiplication.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks.angles import Floats, nearest_rotation
from landmarks.smirk_motion import SmirkMotion

POINTS = 478
BLENDSHAPES = 52
# Stored coordinates span this range, so that a face may stick out of the frame by half its size.
_LOW, _HIGH = -0.5, 1.5


@dataclass(frozen=True, eq=False)
class LandmarkRecord:
    """One face over the T frames of a clip.

    A frame where no face was found is NaN until :func:`interpolate_missing` fills it; ``found`` keeps saying what was
    detected. Raises ``ValueError`` if a shape or dtype is wrong, or if a found frame is not finite.
    """

    points: NDArray[np.float32]  # [T, 478, 3] normalised to the source frame
    blendshapes: NDArray[np.float32]  # [T, 52], 0..1
    pose: NDArray[np.float32]  # [T, 4, 4] canonical head space (cm) to camera space (cm), of the source frame
    found: NDArray[np.bool_]  # [T]
    width: int  # of the source frame, px
    height: int
    smirk: SmirkMotion | None = None  # where the backend is SMIRK

    def __post_init__(self) -> None:
        frames = len(self.found)
        expected: dict[str, tuple[type, tuple[int, ...]]] = {
            "points": (np.float32, (frames, POINTS, 3)),
            "blendshapes": (np.float32, (frames, BLENDSHAPES)),
            "pose": (np.float32, (frames, 4, 4)),
            "found": (np.bool_, (frames,)),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} must be {dtype.__name__}{list(shape)}, not {array.dtype}{list(array.shape)}")
            if dtype is np.float32 and not np.isfinite(array[self.found]).all():
                raise ValueError(f"{name} is not finite in a frame that is marked as found")
        if self.smirk is not None and len(self.smirk) != frames:
            raise ValueError(f"smirk must have {frames} frames like the rest, not {len(self.smirk)}")

    def __len__(self) -> int:
        return len(self.found)

    def frames(self, index: slice | NDArray[np.integer]) -> "LandmarkRecord":
        """The record of some frames; a slice or frame numbers."""
        return LandmarkRecord(
            self.points[index],
            self.blendshapes[index],
            self.pose[index],
            self.found[index],
            self.width,
            self.height,
            None if self.smirk is None else self.smirk.frames(index),
        )


def quantise(points: Floats) -> NDArray[np.uint16]:
    """Normalised coordinates to the stored uint16: ``round((v + 0.5) / 2 · 65535)``, clipped to [-0.5, 1.5].

    The error is at most 1.53e-5 of the frame, 0.011 px of a width of 720: fp16 in the same space is some fifteen
    times coarser. Raises ``ValueError`` for NaN or infinity, which have no code.
    """
    if not np.isfinite(points).all():
        raise ValueError("only finite landmarks can be stored; interpolate or drop the missing frames first")
    unit = (np.clip(points, _LOW, _HIGH).astype(np.float64) - _LOW) / (_HIGH - _LOW)
    return np.rint(unit * 65535).astype(np.uint16)


def dequantise(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Undo :func:`quantise`."""
    return (codes.astype(np.float64) / 65535 * (_HIGH - _LOW) + _LOW).astype(np.float32)


def interpolate_missing(record: LandmarkRecord, max_gap: int = 3) -> LandmarkRecord:
    """Fill gaps of up to ``max_gap`` frames linearly between their neighbours; at either end, hold the nearest frame.

    Longer gaps stay NaN, so they cannot be mistaken for data. Poses stay rigid: rotations are interpolated entry by
    entry and brought back to the nearest rotation.
    """
    found = np.flatnonzero(record.found)
    missing = np.flatnonzero(~record.found)
    if not len(found) or not len(missing):
        return record
    following = np.searchsorted(found, missing)
    bounded = np.concatenate([[-1], found, [len(record)]])
    gap = bounded[following + 1] - bounded[following] - 1
    missing, following = missing[gap <= max_gap], following[gap <= max_gap]

    before = found[np.maximum(following - 1, 0)]
    after = found[np.minimum(following, len(found) - 1)]
    weight = np.where(after > before, (missing - before) / np.maximum(after - before, 1), 0.0)

    def fill(values: NDArray[np.float32]) -> NDArray[np.float32]:
        filled = values.copy()
        w = weight.reshape(-1, *[1] * (values.ndim - 1))
        filled[missing] = (1 - w) * values[before] + w * values[after]
        return filled

    pose = fill(record.pose)
    pose[missing, :3, :3] = nearest_rotation(pose[missing, :3, :3])
    return replace(record, points=fill(record.points), blendshapes=fill(record.blendshapes), pose=pose)


def from_region(points: Floats, region_xywh: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """Landmarks found on a region of the frame, normalised to the whole frame.

    ``points[T, 478, 3]`` (or ``[478, 3]``) are normalised to the region ``region_xywh[T, 4]`` (or ``[4]``), given in px
    of the ``width`` × ``height`` frame; the region may reach beyond it.
    """
    x, y, w, h = np.moveaxis(np.asarray(region_xywh, dtype=np.float64), -1, 0)[..., None]
    px, py, pz = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
    return np.stack([(x + px * w) / width, (y + py * h) / height, pz * w / width], axis=-1).astype(np.float32)


def to_crop(
    points: Floats, source_wh: Sequence[int], crop_xywh: Sequence[float], output_wh: Sequence[int]
) -> NDArray[np.float32]:
    """Landmarks in px of a crop: the window ``crop_xywh`` of the source (px), resized to ``output_wh``.

    The window may reach beyond the frame. ``points[..., 478, 3]`` are normalised to the source frame of ``source_wh``
    px; returns ``[..., 478, 2]``.
    """
    source, output = np.asarray(source_wh, dtype=np.float64), np.asarray(output_wh, dtype=np.float64)
    crop = np.asarray(crop_xywh, dtype=np.float64)
    return ((points[..., :2] * source - crop[:2]) * (output / crop[2:])).astype(np.float32)
