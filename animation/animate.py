"""From a picture and a video to a video: what ``faceloom animate`` does with one pair."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from animation.animate_config import AnimateConfig
from animation.driving import Drawings, Driver, drive, read_driver
from animation.output import find_sound, write_videos
from animation.portrait import Portrait, read_portrait
from animation.stitch import stitch
from curation.given_files import check_writable
from faceloom.errors import UserError
from landmarks.face_reader import FaceReader

Report = Callable[[str, int, int], None]
"""Told how far the work is: what is being done, how many of its steps are done, and how many there are."""

FINDING, ANIMATING = "finding the face", "animating"


class Fed(Protocol):
    """What has to be known of a model before it is there: how it is fed."""

    @property
    def style(self) -> str:
        """What the driver's landmarks are to be drawn in."""
        ...

    @property
    def fps(self) -> int:
        """Frames a second that it was trained at."""
        ...


class Animator(Fed, Protocol):
    """What is needed of :class:`animation.pipeline.PortraitAnimationPipeline`."""

    def __call__(
        self,
        canvas: NDArray[np.uint8],
        face: NDArray[np.uint8],
        drawings: Sequence[NDArray[np.uint8]],
        reference_drawing: NDArray[np.uint8],
        *,
        steps: int,
        guidance: float,
        seed: int,
        overlap: int,
        on_step: Callable[[int, int], None] | None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Frames uint8 [480, 720, 3], one for each of ``drawings``."""
        ...


@dataclass(frozen=True)
class Pair:
    """Which portrait moves as which driver, and where the result goes."""

    portrait: Path
    driving: Path
    out: Path
    side_by_side: Path | None = None


@dataclass(frozen=True)
class Animation:
    """A video that was made."""

    out: Path
    side_by_side: Path | None
    frames: int
    fps: int
    width: int
    height: int
    seed: int
    sound: bool
    stitched: bool
    """Whether the frames of the model are put back into the portrait's picture."""
    took_s: float
    notes: tuple[str, ...]
    """What whoever gave the files should know."""

    @property
    def duration_s(self) -> float:
        """Of the video."""
        return self.frames / self.fps


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair that is ready to be animated: all that can be known to be wrong with it has been looked at."""

    pair: Pair
    portrait: Portrait
    driver: Driver
    drawings: Drawings
    sound: bool
    notes: tuple[str, ...]


def prepare(
    pair: Pair, model: Fed, reader: FaceReader, config: AnimateConfig, report: Report = lambda *_: None
) -> Prepared:
    """Read both files of ``pair`` and carry the motion of the one over to the face of the other.

    Raises :class:`UserError`, which names the file and the remedy.
    """
    for path, option in ((pair.out, "out"), (pair.side_by_side, "side-by-side")):
        if path is not None:
            check_writable(path, option)
            if path.resolve() in (pair.portrait.resolve(), pair.driving.resolve()):
                raise UserError(f"{path} would take the place of what it is made from; choose another --{option}")
    if pair.side_by_side is not None and pair.side_by_side.resolve() == pair.out.resolve():
        raise UserError(f"{pair.out} cannot be both videos; choose another --side-by-side")
    portrait = read_portrait(pair.portrait, reader, config.portrait)
    driver = read_driver(pair.driving, config.fps or model.fps, reader, lambda done, of: report(FINDING, done, of))
    points_px, held = drive(portrait, driver, reader.backend, config.motion)
    notes = list(portrait.notes)
    if held:
        notes.append(
            f"{pair.driving} shows no face in {held} of {len(driver)} frames, in gaps too long to be filled; the portrait "
            "holds still there"
        )
    sound, lost = find_sound(driver)
    if lost:
        notes.append(lost)
    return Prepared(pair, portrait, driver, Drawings(points_px, model.style), sound, tuple(notes))


def animate(prepared: Prepared, model: Animator, config: AnimateConfig, report: Report = lambda *_: None) -> Animation:
    """Make the video, and write it whole or not at all; of its length memory holds landmarks alone.

    Equal files, settings and weights give equal bytes on the CPU. Raises :class:`UserError` if settings do not fit the model
    or a file cannot be written.
    """
    began = time.monotonic()
    pair, portrait, driver = prepared.pair, prepared.portrait, prepared.driver
    frames = model(
        portrait.canvas,
        portrait.face,
        prepared.drawings,
        portrait.reference_drawing,
        steps=config.steps,
        guidance=config.guidance,
        seed=config.seed,
        overlap=config.overlap,
        on_step=lambda done, of: report(ANIMATING, done, of),
    )
    write_videos(
        stitch(frames, portrait) if portrait.stitched else frames,
        driver,
        pair.out,
        config.video,
        sound=prepared.sound,
        portrait=portrait.picture if portrait.stitched else portrait.canvas,
        side_by_side=pair.side_by_side,
    )
    height, width = (portrait.picture if portrait.stitched else portrait.canvas).shape[:2]
    return Animation(
        out=pair.out,
        side_by_side=pair.side_by_side,
        frames=len(driver),
        fps=driver.fps,
        width=width,
        height=height,
        seed=config.seed,
        sound=prepared.sound,
        stitched=portrait.stitched,
        took_s=time.monotonic() - began,
        notes=prepared.notes,
    )
