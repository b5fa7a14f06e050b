"""MTCNN (Zhang et al., 2016): three small networks, each of which looks closer at what the one before proposes.

Weights are those of the package ``facenet-pytorch`` (MIT), which has them from the authors' release; read here, so that the
package with its old requirements need not be installed.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torchvision.ops import nms

from landmarks.landmarker import Box

_FACTOR = 0.709  # between scales of the pyramid: halves the area
_THRESHOLDS = (0.6, 0.7, 0.7)
_CELL, _STRIDE = 12, 2  # px that the first network sees of a face, and from one place to the next
_BATCH = 512

Weights = Mapping[str, Tensor]


class Mtcnn:
    """The detector of one process, on the CPU."""

    def __init__(self, proposals: Path, refinement: Path, output: Path) -> None:
        self._nets = [
            torch.load(file, map_location="cpu", weights_only=True) for file in (proposals, refinement, output)
        ]

    @torch.inference_mode()
    def detect(self, frame: np.ndarray, min_face_px: float, min_score: float) -> list[tuple[float, Box]]:
        """Score and box (px) of every face of at least ``min_face_px`` in ``frame``, uint8 RGB ``[H, W, 3]``."""
        boxes = self._proposed(frame, max(min_face_px, _CELL))
        for net, size, threshold, overlap in ((_rnet, 24, _THRESHOLDS[1], "union"), (_onet, 48, _THRESHOLDS[2], "min")):
            if not len(boxes):
                return []
            boxes = _squared(boxes)
            crops = torch.cat([_crop(frame, box, size) for box in boxes.tolist()])
            parts = [crops[at : at + _BATCH] for at in range(0, len(crops), _BATCH)]
            results = [net(self._nets[1 if size == 24 else 2], part) for part in parts]
            scores, shifts = (torch.cat(values) for values in zip(*results, strict=True))
            good = scores > threshold
            boxes = _shifted(boxes[good], shifts[good], scores[good])
            boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)] if overlap == "union" else by_smaller(boxes)
        return [(score, Box(*corners)) for *corners, score in boxes.tolist() if score >= min_score]

    def _proposed(self, frame: np.ndarray, min_face_px: float) -> Tensor:
        """Boxes ``[n, 5]`` (corners and score) that the first network proposes over all scales."""
        height, width = frame.shape[:2]
        scale = _CELL / min_face_px
        found = [torch.zeros(0, 5)]
        while min(height, width) * scale >= _CELL:
            size = (int(width * scale + 1), int(height * scale + 1))
            scores, shifts = _pnet(self._nets[0], _tensor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
            y, x = torch.nonzero(scores > _THRESHOLDS[0], as_tuple=True)
            corners = torch.stack([x, y], 1).float() * _STRIDE
            boxes = torch.cat([(corners + 1) / scale, (corners + _CELL) / scale], 1)
            keep = nms(boxes, scores[y, x], 0.5)
            found.append(_shifted(boxes[keep], shifts[:, y, x].T[keep], scores[y, x][keep]))
            scale *= _FACTOR
        boxes = torch.cat(found)
        return boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)]


def _pnet(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[h, w]`` and shifts ``[4, h, w]`` of all places of an image ``[1, 3, H, W]``."""
    x = F.max_pool2d(_conv(w, x, "1"), 2, 2, ceil_mode=True)
    x = _conv(w, _conv(w, x, "2"), "3")
    scores = F.conv2d(x, w["conv4_1.weight"], w["conv4_1.bias"]).softmax(1)[0, 1]
    return scores, F.conv2d(x, w["conv4_2.weight"], w["conv4_2.bias"])[0]


def _rnet(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[n]`` and shifts ``[n, 4]`` of crops ``[n, 3, 24, 24]``."""
    x = F.max_pool2d(_conv(w, x, "1"), 3, 2, ceil_mode=True)
    x = F.max_pool2d(_conv(w, x, "2"), 3, 2, ceil_mode=True)
    return _dense(w, _conv(w, x, "3"), "4", "5")


def _onet(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[n]`` and shifts ``[n, 4]`` of crops ``[n, 3, 48, 48]``."""
    x = F.max_pool2d(_conv(w, x, "1"), 3, 2, ceil_mode=True)
    x = F.max_pool2d(_conv(w, x, "2"), 3, 2, ceil_mode=True)
    x = F.max_pool2d(_conv(w, x, "3"), 2, 2, ceil_mode=True)
    return _dense(w, _conv(w, x, "4"), "5", "6")


def _conv(w: Weights, x: Tensor, layer: str) -> Tensor:
    return F.prelu(F.conv2d(x, w[f"conv{layer}.weight"], w[f"conv{layer}.bias"]), w[f"prelu{layer}.weight"])


def _dense(w: Weights, x: Tensor, layer: str, heads: str) -> tuple[Tensor, Tensor]:
    # The weights come from Caffe, which flattened the other way round.
    x = x.permute(0, 3, 2, 1).flatten(1)
    x = F.prelu(F.linear(x, w[f"dense{layer}.weight"], w[f"dense{layer}.bias"]), w[f"prelu{layer}.weight"])
    scores = F.linear(x, w[f"dense{heads}_1.weight"], w[f"dense{heads}_1.bias"]).softmax(1)[:, 1]
    return scores, F.linear(x, w[f"dense{heads}_2.weight"], w[f"dense{heads}_2.bias"])


def _tensor(pixels: np.ndarray) -> Tensor:
    """``[1, 3, H, W]``, about -1 to 1, of uint8 ``[H, W, 3]``."""
    return (torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() - 127.5)[None] / 128


def _crop(frame: np.ndarray, box: list[float], size: int) -> Tensor:
    """The part of the frame in ``box``, what is outside it cut off, resized to ``size`` px square."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in box[:4])
    x0, y0 = min(max(x0 - 1, 0), width - 1), min(max(y0 - 1, 0), height - 1)
    part = frame[y0 : max(y0 + 1, min(y1, height)), x0 : max(x0 + 1, min(x1, width))]
    return _tensor(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA))


def _shifted(boxes: Tensor, shifts: Tensor, scores: Tensor) -> Tensor:
    """Boxes ``[n, 5]`` moved by ``shifts[n, 4]`` in units of their size."""
    size = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
    return torch.cat([boxes[:, :4] + shifts * size, scores[:, None]], 1)


def _squared(boxes: Tensor) -> Tensor:
    centre, side = (boxes[:, :2] + boxes[:, 2:4]) / 2, (boxes[:, 2:4] - boxes[:, :2]).amax(1, keepdim=True)
    return torch.cat([centre - side / 2, centre + side / 2, boxes[:, 4:]], 1)


def by_smaller(boxes: Tensor, limit: float = 0.7) -> Tensor:
    """Of boxes ``[n, 5]`` that share ``limit`` of the smaller one's area, the best."""
    kept: list[Tensor] = []
    for box in boxes[boxes[:, 4].argsort(descending=True, stable=True)]:
        areas = [(min(float(a[2]), float(box[2])) - max(float(a[0]), float(box[0]))) for a in kept]
        heights = [(min(float(a[3]), float(box[3])) - max(float(a[1]), float(box[1]))) for a in kept]
        own = float((box[2] - box[0]) * (box[3] - box[1]))
        shares = [
            max(0.0, w) * max(0.0, h) / max(1e-6, min(own, float((a[2] - a[0]) * (a[3] - a[1]))))
            for a, w, h in zip(kept, areas, heights, strict=True)
        ]
        if max(shares, default=0.0) <= limit:
            kept.append(box)
    return torch.stack(kept) if kept else boxes
