"""InsightFace's detector SCRFD, which the release's scripts find faces with: the largest face and its five key points.

Guo et al., *Sample and Computation Redistribution for Efficient Face Detection* (2021); what is done before and after the
network is that of the package ``insightface`` (``model_zoo/scrfd.py``, MIT), without the package.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.footage import Frame
from faceloom.onnx import read_network

_SIDE_PX = 320  # `det_size` of the scripts
_STRIDES = (8, 16, 32)
_ANCHORS = 2
_LEAST_SCORE, _MOST_OVERLAP = 0.5, 0.4
_SCORE, _BOX, _POINTS = 1, 4, 10  # values an anchor

Floats = NDArray[np.float32]


class Scrfd:
    """The network in the ONNX ``file``, on the CPU. Raises :class:`UserError` if OpenCV cannot read it."""

    def __init__(self, file: Path) -> None:
        self._net = read_network(file, "faceloom evaluate")

    def largest(self, frame: Frame) -> Floats | None:
        """Five key points ``[5, 2]`` in px of the largest face of ``frame`` (uint8 RGB ``[H, W, 3]``), or None."""
        height, width = frame.shape[:2]
        ratio = height / width
        fitted = (int(_SIDE_PX / ratio), _SIDE_PX) if ratio > 1 else (_SIDE_PX, int(_SIDE_PX * ratio))
        scale = fitted[1] / height
        canvas = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
        canvas[: fitted[1], : fitted[0]] = cv2.resize(frame, fitted)
        self._net.setInput(cv2.dnn.blobFromImage(canvas, 1 / 128, mean=(127.5, 127.5, 127.5)))
        outputs = self._net.forward(self._net.getUnconnectedOutLayersNames())
        boxes, points = decode(outputs, _SIDE_PX)
        if not len(boxes):
            return None
        sides = boxes[:, 2:4] - boxes[:, :2]
        return np.asarray(points[np.argmax(sides.prod(axis=1))] / scale, np.float32)


def decode(outputs: Sequence[Floats], side_px: int) -> tuple[Floats, Floats]:
    """Boxes x0, y0, x1, y1 ``[N, 4]`` and key points ``[N, 5, 2]`` in px of the network's square input, best score first.

    ``outputs`` are scores ``[A, 1]``, and how far the box's sides ``[A, 4]`` and the points ``[A, 10]`` are from the anchor,
    in strides; of each stride, in any order.
    """
    found: dict[tuple[int, int], Floats] = {}
    for output in outputs:
        for kind in (_SCORE, _BOX, _POINTS):
            if output.shape[-1] == kind:
                rows = output.reshape(-1, kind)
                found[kind, len(rows)] = rows
    scores, boxes, points = [], [], []
    for stride in _STRIDES:
        cells = side_px // stride
        anchors = _ANCHORS * cells**2
        at = np.stack([*np.mgrid[:cells, :cells][::-1]], axis=-1).reshape(-1, 2).astype(np.float32) * stride
        at = np.repeat(at, _ANCHORS, axis=0)
        good = found[_SCORE, anchors][:, 0] >= _LEAST_SCORE
        at = at[good]
        away = found[_BOX, anchors][good] * stride
        scores.append(found[_SCORE, anchors][good, 0])
        boxes.append(np.concatenate([at - away[:, :2], at + away[:, 2:]], axis=1))
        points.append(at[:, None] + found[_POINTS, anchors][good].reshape(-1, 5, 2) * stride)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    box, point = np.concatenate(boxes)[order], np.concatenate(points)[order]
    kept = _apart(box)
    return box[kept], point[kept]


def _apart(boxes: Floats) -> list[int]:
    """Which boxes, best first, overlap no better one by too much."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    left = np.arange(len(boxes))
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        w = np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(boxes[best, 0], boxes[rest, 0]) + 1
        h = np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(boxes[best, 1], boxes[rest, 1]) + 1
        shared = np.maximum(0, w) * np.maximum(0, h)
        left = rest[shared / (areas[best] + areas[rest] - shared) <= _MOST_OVERLAP]
    return kept
