"""Real faces for the tests: the packaged talking man; and a stand-in for the model that needs no network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from faceloom.errors import UserError
from faceloom.models import model_path
from landmarks.face_reader import FaceReader
from tests.training.tiny import save_release


def _model(name: str) -> Path:
    try:
        return model_path(name, "tests/animation")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def reader() -> Iterator[FaceReader]:
    _model("face_landmarker")
    with FaceReader("mediapipe", "tests/animation") as reader:
        yield reader


@pytest.fixture(scope="session")
def man() -> np.ndarray:
    """``[120, 144, 176, 3]`` RGB at 29.97 fps: one man, talking in a car; the face is 56 px high."""
    with av.open(str(_model("demo/carphone_pristine.mp4"))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_image(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(bytes(cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))[1]))
    return path


class Inverting:
    """A stand-in for the pipeline: gives the canvas as a negative, with the drawing of each frame over it."""

    style = "a1_3d"
    fps = 12

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.largest_slice = 0

    def __call__(
        self,
        canvas: np.ndarray,
        face: np.ndarray,
        drawings: Any,
        reference_drawing: np.ndarray,
        *,
        on_step: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> Iterator[np.ndarray]:
        self.calls.append({"canvas": canvas, "face": face, "reference_drawing": reference_drawing, **settings})
        for start in range(0, len(drawings), 8):
            piece = drawings[start : start + 8]
            self.largest_slice = max(self.largest_slice, len(piece))
            if on_step is not None:
                on_step(min(start + 8, len(drawings)), len(drawings))
            for drawing in piece:
                yield np.where(drawing.any(axis=-1, keepdims=True), drawing, 255 - canvas)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the release of SkyReels-A1 has it, for pictures of 32×48, with a SigLIP of 729 tokens of 1152 values."""
    folder = save_release(tmp_path_factory.mktemp("release") / "SkyReels-A1")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        siglip = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=1152,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=8,
                image_size=378,
                patch_size=14,
            )
        )
    siglip.save_pretrained(folder / "siglip-so400m-patch14-384")
    return folder
