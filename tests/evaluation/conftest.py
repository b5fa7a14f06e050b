"""The talking man, what is seen of him, and what can be done to a video of him."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from evaluation.footage import Footage, of_frames
from evaluation.track import FaceTrack, FaceTracker
from faceloom.errors import UserError
from faceloom.models import model_path

FPS = 10.0


def _model(name: str) -> Path:
    try:
        return model_path(name, "tests/evaluation")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def faces() -> Iterator[FaceTracker]:
    with FaceTracker(_model("face_landmarker")) as tracker:
        yield tracker


@pytest.fixture(scope="session")
def man() -> np.ndarray:
    """uint8 ``[24, 144, 176, 3]``, 10 a second: he talks, and turns his head."""
    with av.open(str(_model("demo/carphone_pristine.mp4"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames[:72:3])


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
