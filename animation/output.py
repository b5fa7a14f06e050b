"""The result as a file: frames as they come, with the driver's sound beside them, whole or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from animation.driving import Driver
from curation.given_files import Picture
from curation.landmark_videos import scaled
from curation.mp4 import Mp4Writer
from curation.sample_video import SampleVideoConfig, sound_blocks
from faceloom.errors import UserError
from shards.storage import replacement


def write_videos(
    frames: Iterable[NDArray[np.uint8]],
    driver: Driver,
    out: Path,
    config: SampleVideoConfig,
    *,
    sound: bool,
    portrait: Picture,
    side_by_side: Path | None = None,
) -> None:
    """Write ``frames`` (uint8 RGB [H, W, 3], sides even, one for each of the driver's) to ``out``: H.264 in MP4, yuv420p.

    ``side_by_side`` is a second file: ``portrait``, the driver and the frames, each with 480 lines. With ``sound`` both have
    the driver's, which begins with the first frame. Frames are taken one at a time. If anything fails, neither file is
    there, or what was there before. Raises :class:`UserError` if one cannot be written.
    """
    with ExitStack() as files:
        main = files.enter_context(_video(out, driver, sound, config))
        if side_by_side is None:
            for frame in frames:
                main.add(frame)
            return
        beside = files.enter_context(_video(side_by_side, driver, sound, config))
        still = scaled(portrait)
        for frame, shown in zip(frames, driver.frames(), strict=True):
            main.add(frame)
            beside.add(np.concatenate([still, scaled(shown), scaled(frame)], axis=1))


def find_sound(driver: Driver) -> tuple[bool, str | None]:
    """Whether the driving video can be heard, and why not if it has sound that is lost. All of it is decoded for that."""
    heard = False
    try:
        for _ in _sound(driver):
            heard = True
    except (av.FFmpegError, ValueError) as error:
        reason = (error.strerror if isinstance(error, av.FFmpegError) else None) or error
        return False, f"the sound of {driver.path} cannot be decoded ({reason}); the result has none"
    return heard, None


def _sound(driver: Driver) -> Iterator[NDArray[np.float32]]:
    if not driver.probed.has_audio:
        return iter(())
    return sound_blocks(str(driver.path), driver.start_s, len(driver) / driver.fps)


@contextmanager
def _video(path: Path, driver: Driver, sound: bool, config: SampleVideoConfig) -> Iterator[Mp4Writer]:
    blocks = _sound(driver) if sound else iter(())
    try:
        with (
            replacement(path) as stream,
            Mp4Writer(stream.name, driver.fps, blocks, crf=config.crf, preset=config.preset, faststart=True) as writer,
        ):
            yield writer
    except OSError as error:
        # FFmpeg's errors of files are OSErrors, too.
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room, or choose another file") from None
