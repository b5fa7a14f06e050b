"""The motion: from a driving video to drawings of landmarks on the portrait, one for each frame that is to be made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from animation.portrait import Portrait
from curation.given_files import naming
from curation.video import FrameReader, Probe, probe, sample_indices
from faceloom.errors import UserError
from landmarks.backend import Backend
from landmarks.drawing import draw, draw_clip
from landmarks.face_reader import FaceReader
from landmarks.geometry import pieces
from landmarks.record import LandmarkRecord
from shards.schema import HEIGHT, WIDTH

Motion = Literal["relative", "self"]
"""``relative``: the driver's expression and turns of the head, from those of the portrait on; position and size of the head
stay the portrait's. ``self``: the driver's landmarks where they are, for a portrait that is a frame of the driver."""

_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Driver:
    """A driving video: which of its frames drive, and the face in them. Pixels are decoded anew each time they are wanted."""

    path: Path
    probed: Probe
    shown: NDArray[np.int64]
    """[T] the frames of the file that drive, by number."""
    fps: int
    record: LandmarkRecord
    """T frames; gaps of up to three are filled, in longer ones landmarks are NaN."""

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def start_s(self) -> float:
        """When the first frame is shown, on the file's own clock."""
        return float(self.probed.pts_s[0])

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """The T frames, uint8 RGB [H, W, 3]."""
        return FrameReader(self.probed).frames(self.shown)


class Drawings(Sequence[NDArray[np.uint8]]):
    """Landmarks drawn on the canvas when they are asked for: like uint8 [T, 480, 720, 3], but only the points are kept.

    ``points_px`` float32 [T, 478, 2], px of the canvas.
    """

    def __init__(self, points_px: NDArray[np.float32], style: str) -> None:
        self._points_px = points_px
        self._style = style

    def __len__(self) -> int:
        return len(self._points_px)

    @overload  # type: ignore[override] # a slice is one array
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.uint8]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8]:
        if isinstance(index, slice):
            return draw_clip(self._points_px[index], HEIGHT, WIDTH, self._style)
        return draw(self._points_px[index], HEIGHT, WIDTH, self._style)


def read_driver(
    path: Path, fps: int, reader: FaceReader, report: Callable[[int, int], None] = lambda _done, _of: None
) -> Driver:
    """The face of the video ``path``, sampled ``fps`` times a second; ``report`` is told how many frames are looked at.

    Raises :class:`UserError`, naming the file and the remedy, if it cannot be decoded or shows no face.
    """
    with naming(path, "driving"):
        probed = probe(str(path))
        shown = sample_indices(probed.pts_s, fps)

        def frames() -> Iterator[NDArray[np.uint8]]:
            for done, frame in enumerate(FrameReader(probed).frames(shown)):
                report(done, len(shown))
                yield frame

        return Driver(path, probed, shown, fps, reader.moving(frames))


def drive(portrait: Portrait, driver: Driver, backend: Backend, motion: Motion) -> tuple[NDArray[np.float32], int]:
    """The portrait's landmarks as the driver moves them, float32 [T, 478, 2] in px of the canvas; and how many are held.

    Frames without a face, in gaps too long to be filled, hold the last landmarks before them, those at the beginning the
    first after them. Raises :class:`UserError` with ``motion`` self if the portrait has not the shape of the driver's frames.
    """
    if motion == "self":
        _check_same_shape(portrait, driver)
        points = backend.own(driver.record)
    else:
        points = backend.onto(driver.record, portrait.record)
    seen = np.asarray(np.isfinite(driver.record.points).all(axis=(1, 2)))
    shown = _last_seen(seen)
    px = np.empty_like(points)
    for piece in pieces(len(points)):
        px[piece] = portrait.in_canvas(points[shown[piece]])
    return px, int((~seen).sum())


def _last_seen(seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each frame the last one up to it that is ``seen`` [T], or else the first after it."""
    numbers = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), -1))
    return np.where(numbers < 0, int(seen.argmax()), numbers)


def _check_same_shape(portrait: Portrait, driver: Driver) -> None:
    own, other = portrait.record, driver.record
    if abs(own.width / own.height * other.height / other.width - 1) > _ASPECT_TOLERANCE:
        raise UserError(
            f"{driver.path} has frames of {other.width}x{other.height} px, the portrait has {own.width}x{own.height}: "
            "motion self is for a portrait that is a frame of the driving video; take --set motion=relative for any other"
        )
