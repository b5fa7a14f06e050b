"""MediaPipe's FaceLandmarker on a part of a frame: 478 points and 52 blendshapes of each face, placed in the frame."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from landmarks.record import from_region

Region = tuple[int, int, int, int]  # x, y, w, h in px of the frame

TILES, TILE_OVERLAP = 3, 0.34
"""BlazeFace on a whole frame misses faces below about 0.2 of its height; on 3 × 3 tiles it finds them from 0.10 up."""

_FOLLOW_SCALE = 2.0  # leaves BlazeFace, inside FaceLandmarker, the margin it was trained with


@dataclass(frozen=True)
class Box:
    """A rectangle in source pixels, x to the right, y down."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Width in px."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Height in px."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Area in px²; 0 for an inverted box."""
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        """Centre x, y in px."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def iou(self, other: "Box") -> float:
        """Intersection over union."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        shared = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether ``point`` lies inside."""
        return self.x0 <= point[0] <= self.x1 and self.y0 <= point[1] <= self.y1

    def continues(self, other: "Box") -> bool:
        """Whether two boxes can be one face some frames apart.

        IoU of at least 0.3, or centres within half a box and a size ratio of 0.7 to 1.43.
        """
        if self.iou(other) >= 0.3:
            return True
        size, others = max(self.width, self.height), max(other.width, other.height)
        distance = float(np.hypot(*np.subtract(self.centre, other.centre)))
        return distance <= 0.5 * max(size, others) and 0.7 <= size / others <= 1.43

    def square(self, scale: float, width: int, height: int) -> Region:
        """The square of ``scale`` times the longer side about the centre, clipped to the frame.

        At least one px of the frame, even for a box that has left it.
        """
        side = scale * max(self.width, self.height)
        cx, cy = self.centre
        x0, y0 = (int(np.clip(round(c - side / 2), 0, limit - 1)) for c, limit in ((cx, width), (cy, height)))
        x1, y1 = (
            int(np.clip(round(c + side / 2), low + 1, limit)) for c, low, limit in ((cx, x0, width), (cy, y0, height))
        )
        return x0, y0, x1 - x0, y1 - y0


@dataclass(frozen=True)
class Face:
    """One face in one frame: ``points[478, 3]`` float32, normalised to the source frame; ``blendshapes[52]`` float32."""

    points: np.ndarray
    blendshapes: np.ndarray
    box: Box
    score: float


class Landmarker:
    """The landmarker of one process, unsmoothed (IMAGE mode): a frame's result is its own."""

    def __init__(self, task_file: Path) -> None:
        self._model = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(task_file)),
                output_face_blendshapes=True,
                num_faces=2,
            )
        )

    def close(self) -> None:
        """Free the graph."""
        self._model.close()

    def faces(self, frame: np.ndarray, region: Region, min_px: int = 0) -> list[Face]:
        """Up to two faces in ``region`` of ``frame`` (uint8 RGB ``[H, W, 3]``).

        The region is enlarged until its longer side has ``min_px``.
        """
        x, y, w, h = region
        crop = frame[y : y + h, x : x + w]
        if max(w, h) < min_px:
            scale = min_px / max(w, h)
            crop = cv2.resize(crop, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_CUBIC)
        result = self._model.detect(mediapipe_image(crop))
        faces = []
        for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            local = np.array([(p.x, p.y, p.z) for p in points], np.float32)
            placed = from_region(local, region, frame.shape[1], frame.shape[0])
            values = np.array([shape.score for shape in shapes], np.float32)
            faces.append(Face(placed, values, landmark_box(placed, frame.shape[1], frame.shape[0]), 1.0))
        return faces

    def follow(self, frame: np.ndarray, expected: Box) -> Face | None:
        """The face of ``frame`` (uint8 RGB ``[H, W, 3]``) that continues ``expected``, or None."""
        faces = self.faces(frame, expected.square(_FOLLOW_SCALE, frame.shape[1], frame.shape[0]))
        fitting = [face for face in faces if face.box.continues(expected)]
        return max(fitting, key=lambda face: face.box.iou(expected), default=None)


def landmark_box(points: np.ndarray, width: int, height: int) -> Box:
    """Bounding box in source px of ``points[..., 3]``, normalised to the source frame."""
    x, y = points[..., 0] * width, points[..., 1] * height
    return Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def tile_regions(width: int, height: int, tiles: int, overlap: float) -> list[Region]:
    """A frame of ``width`` × ``height`` px cut into ``tiles`` × ``tiles`` that share ``overlap`` of their sides."""
    span = tiles - (tiles - 1) * overlap
    w, h = int(np.ceil(width / span)), int(np.ceil(height / span))
    xs = np.linspace(0, width - w, tiles).round().astype(int)
    ys = np.linspace(0, height - h, tiles).round().astype(int)
    return [(int(x), int(y), w, h) for y in ys for x in xs]


def mediapipe_image(pixels: np.ndarray) -> mp.Image:
    """``pixels[H, W, 3]`` (uint8 RGB) as MediaPipe takes them."""
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
