"""Reference, driver, result and truth beside each other, as one video: so they play in step whatever plays them."""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from curation.sample_video import SampleVideoConfig, encode_sample
from evaluation.footage import Footage, Frame, of_file, reference_image
from evaluation.pairs import Pair

_HEIGHT = 240
_CRF = 26


@dataclass(frozen=True)
class Panels:
    """``video`` is MP4, ``columns`` what it shows from left to right and how wide each is, in px.

    A video of nothing has a ``note`` that says why.
    """

    video: bytes = b""
    columns: tuple[tuple[str, int], ...] = ()
    note: str = ""


def start() -> None:
    """Make this process one that draws panels."""
    # FFmpeg writes to the process's own stderr, in the middle of the progress display.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    cv2.setNumThreads(1)


def panels(work: tuple[Pair, float]) -> Panels:
    """The panels of a pair, for so many seconds. Of what cannot be read there is a note."""
    pair, seconds = work
    try:
        return _panels(pair, seconds)
    except Exception as error:  # the page goes on without this video
        return Panels(note=f"{type(error).__name__}: {error}")


def _panels(pair: Pair, seconds: float) -> Panels:
    result = of_file(pair.result)
    count = min(len(result), max(1, round(seconds * result.fps)))
    shown: dict[str, Iterable[Frame]] = {}
    widths: dict[str, int] = {}
    if pair.reference is not None:
        image = reference_image(pair.reference)
        shown["reference"] = itertools.repeat(image)
        widths["reference"] = _width(image.shape[1], image.shape[0])
    videos: dict[str, Footage | None] = {
        "driver": of_file(pair.driving, result.fps, count) if pair.driving else None,
        "result": result,
        "truth": of_file(pair.truth, result.fps, count) if pair.truth else None,
    }
    for name, footage in videos.items():
        if footage is not None:
            shown[name] = _held(footage)
            widths[name] = _width(footage.width, footage.height)
    rows = itertools.islice(zip(*shown.values(), strict=False), count)
    pictures = (
        np.concatenate([_scaled(frame, width) for frame, width in zip(row, widths.values(), strict=True)], axis=1)
        for row in rows
    )
    return Panels(
        encode_sample(pictures, result.fps, None, SampleVideoConfig(crf=_CRF, preset="veryfast")), tuple(widths.items())
    )


def _held(footage: Footage) -> Iterator[Frame]:
    """Its frames, and then black ones: what has ended shows nothing."""
    yield from footage
    yield from itertools.repeat(np.zeros((footage.height, footage.width, 3), np.uint8))


def _width(width: int, height: int) -> int:
    return max(2, round(width * _HEIGHT / height / 2) * 2)


def _scaled(frame: Frame, width: int) -> Frame:
    method = cv2.INTER_AREA if frame.shape[0] > _HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, _HEIGHT), interpolation=method), np.uint8)
