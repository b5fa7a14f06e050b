"""Portraits and drivers that no detector has seen, for tests of what happens to their pixels."""

from pathlib import Path

import numpy as np

from animation.driving import Driver
from animation.portrait import Portrait
from curation.crop import CropWindow
from curation.video import probe, sample_indices
from landmarks.record import BLENDSHAPES, POINTS, LandmarkRecord


def blank_record(frames: int, width: int, height: int) -> LandmarkRecord:
    return LandmarkRecord(
        np.full((frames, POINTS, 3), 0.5, np.float32),
        np.zeros((frames, BLENDSHAPES), np.float32),
        np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
        np.ones(frames, bool),
        width,
        height,
    )


def portrait_with(picture: np.ndarray, x: int, y: int, h: int) -> Portrait:
    """Its window has the upper left corner (x, y), which may be left of the picture, and ``h`` lines."""
    height, width = picture.shape[:2]
    window = CropWindow(x, y, h * 3 // 2, h, "portrait", (0, width))
    return Portrait(picture, blank_record(1, width, height), window, True, ())


def driver_of(path: Path, fps: int = 12) -> Driver:
    probed = probe(str(path))
    shown = sample_indices(probed.pts_s, fps)
    return Driver(path, probed, shown, fps, blank_record(len(shown), probed.width, probed.height))
