"""A video as frames at a steady rate, which can be gone through again and again without being held in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.containers import MAX_FRAMES
from curation.given_files import read_image
from curation.video import FrameReader, OversizedVideoError, Probe, probe, sample_indices
from faceloom.errors import UserError
from shards.schema import FPS

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Footage:
    """``len`` frames, uint8 RGB ``[H, W, 3]``, ``fps`` a second from the first one on."""

    name: str
    fps: float
    width: int
    height: int
    _count: int
    _read: Callable[[], Iterator[Frame]]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        return self._read()


def of_frames(frames: NDArray[np.uint8], fps: float, name: str = "frames") -> Footage:
    """The frames ``[T, H, W, 3]`` themselves."""
    _, height, width, _ = frames.shape
    return Footage(name, fps, width, height, len(frames), lambda: iter(frames))


def of_file(path: Path, fps: float | None = None, at_most: int | None = None) -> Footage:
    """The frames that ``path`` shows nearest to each instant, ``fps`` a second, by presentation time.

    Without ``fps`` at the rate that the file has. ``at_most`` so many from the first on. Raises
    :class:`curation.video.VideoError` if it cannot be read; what is damaged further on is found when frames are read.
    """
    probed = probe(str(path))
    rate = fps or probed.fps or FPS
    if probed.duration_s * rate > MAX_FRAMES:
        raise OversizedVideoError(f"the times of {path} span {probed.duration_s / 3600:.0f} hours; re-encode it")
    shown = sample_indices(probed.pts_s, rate)[:at_most]
    return Footage(str(path), rate, probed.width, probed.height, len(shown), lambda: _frames(probed, shown))


def every_frame(path: Path) -> Footage:
    """All frames of ``path`` as they are stored, whenever they are shown. Raises as :func:`of_file`."""
    probed = probe(str(path))
    shown = np.arange(len(probed.pts_s))
    return Footage(
        str(path), probed.fps or FPS, probed.width, probed.height, len(shown), lambda: _frames(probed, shown)
    )


def reference_image(path: Path) -> Frame:
    """A portrait, uint8 RGB ``[H, W, 3]``. Raises :class:`UserError` for one that cannot be read."""
    try:
        return np.asarray(read_image(path), np.uint8)
    except UserError as error:
        # What is wrong is told before the last semicolon; the remedy after it is that of another command.
        raise UserError(f"{str(error).rpartition(';')[0]}; give another picture with --references") from None


def _frames(probed: Probe, shown: NDArray[np.int64]) -> Iterator[Frame]:
    return FrameReader(probed).frames(shown)
