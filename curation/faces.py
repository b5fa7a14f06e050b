"""Faces in frames: the census that counts them, and the landmarks of the one that is followed.

BlazeFace on a whole frame misses every face below about 0.2 of its height, so the census also looks at overlapping
tiles. Tiles invent faces; a candidate counts only when FaceLandmarker finds a face on an enlarged crop around it.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from pydantic import Field

from faceloom.config import Section
from landmarks.record import from_region


class CensusConfig(Section):
    """Who is in the picture: looked at ``fps`` times a second on the frame and its tiles."""

    fps: float = Field(2.0, gt=0)
    tiles: int = Field(3, ge=1)
    """Tiles a side; 3 finds faces from 0.10 of the frame's height up."""
    overlap: float = Field(0.34, ge=0, lt=1)
    min_confidence: float = 0.5
    """BlazeFace score below which a candidate is not even verified."""
    verify_scale: float = Field(2.2, ge=1)
    verify_min_px: int = Field(256, ge=1)
    """A candidate is verified on a crop ``verify_scale`` times its box, enlarged to at least this many pixels."""


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

    def square(self, scale: float, width: int, height: int) -> tuple[int, int, int, int]:
        """The square of ``scale`` times the longer side about the centre, clipped to the frame, as x, y, w, h.

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


class FaceFinder:
    """The detector and the landmarker of one process, both unsmoothed (IMAGE mode): a frame's result is its own."""

    def __init__(self, task_file: Path, config: CensusConfig) -> None:
        self._config = config
        with zipfile.ZipFile(task_file) as bundle:
            detector = bundle.read("face_detector.tflite")
        self._detector = vision.FaceDetector.create_from_options(
            vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=detector),
                min_detection_confidence=config.min_confidence,
            )
        )
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(task_file)),
                output_face_blendshapes=True,
                num_faces=2,
            )
        )

    def close(self) -> None:
        """Free both graphs."""
        self._detector.close()
        self._landmarker.close()

    def census(self, frame: np.ndarray) -> list[Face]:
        """Every verified face of ``frame`` (uint8 RGB ``[H, W, 3]``), largest first."""
        height, width = frame.shape[:2]
        candidates: list[tuple[float, Box]] = []
        for x, y, w, h in [(0, 0, width, height), *_tiles(width, height, self._config)]:
            found = self._detector.detect(_image(frame[y : y + h, x : x + w])).detections
            for detection in found:
                box = detection.bounding_box
                x0, y0 = x + box.origin_x, y + box.origin_y
                score = float(detection.categories[0].score)
                candidates.append((score, Box(x0, y0, x0 + box.width, y0 + box.height)))
        faces: list[Face] = []
        # Larger first: a whole face is verified before the tiles' guesses at parts of it, which it then covers.
        for score, box in sorted(candidates, key=lambda c: (-c[1].area, -c[0])):
            if any(face.box.holds(box.centre) for face in faces):
                continue
            for face in self._verify(frame, box, score):
                if not any(known.box.iou(face.box) > 0.3 or known.box.holds(face.box.centre) for known in faces):
                    faces.append(face)
        return sorted(faces, key=lambda face: -face.box.area)

    def follow(self, frame: np.ndarray, expected: Box) -> Face | None:
        """The face of ``frame`` that continues ``expected``, or None."""
        faces = self._landmarks(frame, expected.square(_FOLLOW_SCALE, frame.shape[1], frame.shape[0]))
        fitting = [face for face in faces if face.box.continues(expected)]
        return max(fitting, key=lambda face: face.box.iou(expected), default=None)

    def _verify(self, frame: np.ndarray, candidate: Box, score: float) -> Iterable[Face]:
        height, width = frame.shape[:2]
        region = candidate.square(self._config.verify_scale, width, height)
        for face in self._landmarks(frame, region, self._config.verify_min_px):
            if candidate.holds(face.box.centre):
                yield Face(face.points, face.blendshapes, face.box, score)

    def _landmarks(self, frame: np.ndarray, region: tuple[int, int, int, int], min_px: int = 0) -> list[Face]:
        x, y, w, h = region
        crop = frame[y : y + h, x : x + w]
        if max(w, h) < min_px:
            scale = min_px / max(w, h)
            crop = cv2.resize(crop, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_CUBIC)
        result = self._landmarker.detect(_image(crop))
        faces = []
        for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            local = np.array([(p.x, p.y, p.z) for p in points], np.float32)
            placed = from_region(local, region, frame.shape[1], frame.shape[0])
            values = np.array([shape.score for shape in shapes], np.float32)
            faces.append(Face(placed, values, landmark_box(placed, frame.shape[1], frame.shape[0]), 1.0))
        return faces


_FOLLOW_SCALE = 2.0  # leaves BlazeFace, inside FaceLandmarker, the margin it was trained with


def landmark_box(points: np.ndarray, width: int, height: int) -> Box:
    """Bounding box in source px of ``points[..., 3]``, normalised to the source frame."""
    x, y = points[..., 0] * width, points[..., 1] * height
    return Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _tiles(width: int, height: int, config: CensusConfig) -> list[tuple[int, int, int, int]]:
    if config.tiles < 2:
        return []
    span = config.tiles - (config.tiles - 1) * config.overlap
    w, h = int(np.ceil(width / span)), int(np.ceil(height / span))
    xs = np.linspace(0, width - w, config.tiles).round().astype(int)
    ys = np.linspace(0, height - h, config.tiles).round().astype(int)
    return [(int(x), int(y), w, h) for y in ys for x in xs]


def _image(pixels: np.ndarray) -> mp.Image:
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
