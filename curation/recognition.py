"""Who a face is, by a recognition network that the user supplies: whether the looks of a face stay one person's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from curation.identity import five_points
from faceloom.onnx import read_network
from landmarks.landmarker import Face

MODEL_KEY = "identity_check.model"

SIDE = 112
# Eyes, nose and mouth corners in a crop of 112 px: the template of ArcFace (InsightFace) and SFace (OpenCV) alike.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


@dataclass(frozen=True)
class Network:
    """A network by its file in ``faceloom/models.toml``, and how it takes pixels: ``(p - mean) · scale``, RGB."""

    file: str
    mean: float
    scale: float


NETWORKS = {
    "sface": Network("sface", 0.0, 1.0),
    "arcface": Network("arcface", 127.5, 1 / 127.5),
}


class Recogniser:
    """A network of :data:`NETWORKS`, on the CPU, from its ONNX ``file``.

    Raises :class:`UserError` if OpenCV cannot read the file; ``wanted_by`` says there who asked for it.
    """

    def __init__(self, name: str, file: Path, wanted_by: str = MODEL_KEY) -> None:
        self._network = NETWORKS[name]
        self._net = read_network(file, wanted_by)

    def embed(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The embedding of ``face`` in ``frame`` (uint8 RGB ``[H, W, 3]``): float32 ``[D]``, of length 1.

        Its direction says who it is. NaN where the five points that align a face coincide.
        """
        height, width = frame.shape[:2]
        aligned = align(frame, face.points[:, :2] * [width, height])
        embedding = self.embed_aligned(np.zeros((SIDE, SIDE, 3), np.uint8) if aligned is None else aligned)
        return embedding if aligned is not None else np.full_like(embedding, np.nan)

    def embed_aligned(self, aligned: np.ndarray) -> np.ndarray:
        """As :meth:`embed`, of a face that :func:`align` or another has put in place."""
        mean = self._network.mean
        self._net.setInput(cv2.dnn.blobFromImage(aligned, self._network.scale, mean=(mean, mean, mean)))
        embedding = np.asarray(self._net.forward(), np.float32).ravel()
        return embedding / np.linalg.norm(embedding)


def align(frame: np.ndarray, points_px: np.ndarray) -> np.ndarray | None:
    """The face of ``points_px`` [478, 2] in the place that recognition networks expect: uint8 RGB ``[112, 112, 3]``.

    None where the five points that align a face coincide.
    """
    placed, _ = cv2.estimateAffinePartial2D(five_points(points_px), TEMPLATE, method=cv2.LMEDS)
    return None if placed is None else np.asarray(cv2.warpAffine(frame, placed, (SIDE, SIDE)), np.uint8)


def least_similarity(embeddings: Mapping[int, np.ndarray], window: tuple[int, int], shot: tuple[int, int]) -> float:
    """How like the median of its shot the most unlike look of a window is: cosine, -1 to 1.

    ``embeddings`` of length 1 by frame; ``window`` and ``shot`` are spans ``(start, stop)``. NaN where none is known.
    """
    known = {frame: each for frame, each in embeddings.items() if np.isfinite(each).all()}
    looks = [each for frame, each in known.items() if window[0] <= frame < window[1]]
    if not looks:
        return float("nan")
    median = np.median([each for frame, each in known.items() if shot[0] <= frame < shot[1]], axis=0)
    return float(min(np.stack(looks) @ median) / max(float(np.linalg.norm(median)), 1e-9))
