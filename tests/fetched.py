"""What `faceloom models fetch` brings, for the tests that need real faces; they are skipped where it was not fetched."""

from pathlib import Path

import av
import numpy as np
import pytest

from faceloom.errors import UserError
from faceloom.models import model_path


def model(name: str) -> Path:
    """The file of ``name``. Skips the test where it is not there."""
    try:
        return model_path(name, "this test")
    except UserError as error:
        pytest.skip(str(error))


def frames(name: str) -> np.ndarray:
    """All of the video ``name``, ``[T, H, W, 3]`` RGB. Skips the test where it is not there."""
    with av.open(str(model(name))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
