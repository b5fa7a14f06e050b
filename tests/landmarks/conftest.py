"""Real faces for the tests: MediaPipe run on the packaged footage of a talking man."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@dataclass(frozen=True)
class Detections:
    """MediaPipe's own answers for frames that all hold a face."""

    points: np.ndarray  # [T, 478, 3]
    blendshapes: np.ndarray  # [T, 52]
    blendshape_names: list[str]
    pose: np.ndarray  # [T, 4, 4]


Landmarker = Callable[[np.ndarray], Detections]


@pytest.fixture(scope="session")
def talking_man(man: np.ndarray) -> np.ndarray:
    """``[30, 144, 176, 3]`` RGB: every fourth frame."""
    return np.ascontiguousarray(man[::4])


@pytest.fixture(scope="session")
def landmarker(task_file: Path) -> Iterator[Landmarker]:
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(task_file)),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    with vision.FaceLandmarker.create_from_options(options) as model:

        def detect(frames: np.ndarray) -> Detections:
            results = [
                model.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame)))
                for frame in frames
            ]
            return Detections(
                points=np.array([[(p.x, p.y, p.z) for p in r.face_landmarks[0]] for r in results], dtype=np.float32),
                blendshapes=np.array([[b.score for b in r.face_blendshapes[0]] for r in results], dtype=np.float32),
                blendshape_names=[b.category_name for b in results[0].face_blendshapes[0]],
                pose=np.array([r.facial_transformation_matrixes[0] for r in results]),
            )

        yield detect


@pytest.fixture(scope="session")
def detected(landmarker: Landmarker, talking_man: np.ndarray) -> Detections:
    return landmarker(talking_man)
