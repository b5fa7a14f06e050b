"""The talking man, what is seen of him, and what can be done to a video of him."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluation.footage import Footage, of_frames
from evaluation.track import FaceTrack, FaceTracker

FPS = 10.0


@pytest.fixture(scope="session")
def faces(task_file: Path) -> Iterator[FaceTracker]:
    with FaceTracker(task_file) as tracker:
        yield tracker


@pytest.fixture(scope="session")
def man(man: np.ndarray) -> np.ndarray:
    """uint8 ``[24, 144, 176, 3]``, 10 a second: he talks, and turns his head."""
    return np.ascontiguousarray(man[:72:3])


@pytest.fixture(scope="session")
def driver(man: np.ndarray) -> Footage:
    return of_frames(man, FPS, "driver")


@pytest.fixture(scope="session")
def seen(driver: Footage, faces: FaceTracker) -> FaceTrack:
    return faces.track(driver)


See = Callable[[np.ndarray], tuple[Footage, FaceTrack]]


@pytest.fixture(scope="session")
def see(faces: FaceTracker) -> See:
    """What there is of other frames of as many a second."""

    def look(frames: np.ndarray) -> tuple[Footage, FaceTrack]:
        footage = of_frames(np.ascontiguousarray(frames), FPS)
        return footage, faces.track(footage)

    return look


def noisy(frames: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)
