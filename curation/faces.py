"""Faces in frames: the census that counts them, and the landmarks of the one that is followed.

BlazeFace on a whole frame misses every face below about 0.2 of its height, so the census also looks at overlapping
tiles, or with MTCNN. Both invent faces; a candidate counts only when FaceLandmarker finds a face on an enlarged crop
around it.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from pydantic import Field

from faceloom.config import Section
from faceloom.models import model_path
from landmarks.landmarker import TILE_OVERLAP, Box, Face, Landmarker, mediapipe_image, tile_regions

if TYPE_CHECKING:
    from curation.mtcnn import Mtcnn

MTCNN_FILES = ("mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet")


class CensusConfig(Section):
    """Who is in the picture: looked at ``fps`` times a second on the frame and its tiles."""

    fps: float = Field(2.0, gt=0)
    detector: Literal["blazeface", "mtcnn", "both"] = "blazeface"
    """BlazeFace on tiles finds faces from 0.10 of the frame's height up; those that contest the picture are as high, unless
    the main face is below 0.26. MTCNN finds them from 0.04 up, for twice the time, with torch in every worker.
    ``both``: MTCNN only where no face is above ``small_main_share``; for full figures. Measured with bench/census.py."""
    small_main_share: float = Field(0.26, gt=0, le=1)
    """Face box height over frame height: with a smaller main face, ``character.second_face_area`` 0.15 asks for faces that
    tiles miss."""
    tiles: int = Field(4, ge=1)
    """Tiles a side. Of faces at 0.10 of the frame's height, where one begins to contest the picture, 4 find all, 3 find three
    in four at two thirds of the time."""
    overlap: float = Field(TILE_OVERLAP, ge=0, lt=1)
    min_confidence: float = 0.5
    """BlazeFace score below which a candidate is not even verified."""
    mtcnn_min_share: float = Field(0.07, gt=0, le=1)
    """Of the frame's height: the smallest face that MTCNN looks for, hair and chin included. 0.05 finds faces from 0.03 up at
    a third more, 0.1 from 0.08 up."""
    mtcnn_min_confidence: float = Field(0.95, ge=0.7, le=1)
    """As ``min_confidence``, for MTCNN."""
    verify_scale: float = Field(2.2, ge=1)
    verify_min_px: int = Field(256, ge=1)
    """A candidate is verified on a crop ``verify_scale`` times its box, enlarged to at least this many pixels."""


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
        self._landmarker = Landmarker(task_file)
        self._mtcnn: Mtcnn | None = None
        if config.detector != "blazeface":
            from curation import mtcnn  # torch, which other workers do without

            self._mtcnn = mtcnn.Mtcnn(*(model_path(name, "census.detector") for name in MTCNN_FILES))

    def close(self) -> None:
        """Free both graphs."""
        self._detector.close()
        self._landmarker.close()

    def census(self, frame: np.ndarray) -> list[Face]:
        """Every verified face of ``frame`` (uint8 RGB ``[H, W, 3]``), largest first."""
        faces: list[Face] = []
        if self._config.detector != "mtcnn":
            self._confirm(frame, self._on_tiles(frame), faces)
        if self._mtcnn is not None and not any(self._is_large(face, frame) for face in faces):
            least = self._config.mtcnn_min_share * len(frame)
            self._confirm(frame, self._mtcnn.detect(frame, least, self._config.mtcnn_min_confidence), faces)
        return sorted(faces, key=lambda face: -face.box.area)

    def _is_large(self, face: Face, frame: np.ndarray) -> bool:
        return self._config.detector == "both" and face.box.height >= self._config.small_main_share * len(frame)

    def _confirm(self, frame: np.ndarray, candidates: list[tuple[float, Box]], faces: list[Face]) -> None:
        """Add to ``faces`` those of the ``candidates`` that are faces and new."""
        # Larger first: a whole face is verified before the tiles' guesses at parts of it, which it then covers.
        for score, box in sorted(candidates, key=lambda c: (-c[1].area, -c[0])):
            if any(face.box.holds(box.centre) for face in faces):
                continue
            for face in self._verify(frame, box, score):
                if any(known.box.iou(face.box) > 0.3 or known.box.holds(face.box.centre) for known in faces):
                    continue
                # Beside a face, hands and patterns are taken for another; hardly ever in their mirror image too.
                if not faces or self._in_mirror_image(frame, face.box):
                    faces.append(face)

    def _on_tiles(self, frame: np.ndarray) -> list[tuple[float, Box]]:
        """Score and box of what BlazeFace takes for a face, on the frame and its tiles."""
        height, width = frame.shape[:2]
        candidates: list[tuple[float, Box]] = []
        regions = [(0, 0, width, height)]
        if self._config.tiles > 1:
            regions += tile_regions(width, height, self._config.tiles, self._config.overlap)
        for x, y, w, h in regions:
            found = self._detector.detect(mediapipe_image(frame[y : y + h, x : x + w])).detections
            for detection in found:
                box = detection.bounding_box
                x0, y0 = x + box.origin_x, y + box.origin_y
                score = float(detection.categories[0].score)
                candidates.append((score, Box(x0, y0, x0 + box.width, y0 + box.height)))
        return candidates

    def follow(self, frame: np.ndarray, expected: Box) -> Face | None:
        """The face of ``frame`` that continues ``expected``, or None."""
        return self._landmarker.follow(frame, expected)

    def _in_mirror_image(self, frame: np.ndarray, box: Box) -> bool:
        """Whether the face at ``box`` is also found when the picture around it is mirrored."""
        x, y, w, h = region = box.square(self._config.verify_scale, frame.shape[1], frame.shape[0])
        mirrored = frame[y : y + h, x : x + w][:, ::-1]
        place = Box(w - (box.x1 - x), box.y0 - y, w - (box.x0 - x), box.y1 - y)
        found = self._landmarker.faces(mirrored, (0, 0, *region[2:]), self._config.verify_min_px)
        return any(place.holds(face.box.centre) for face in found)

    def _verify(self, frame: np.ndarray, candidate: Box, score: float) -> Iterable[Face]:
        height, width = frame.shape[:2]
        region = candidate.square(self._config.verify_scale, width, height)
        for face in self._landmarker.faces(frame, region, self._config.verify_min_px):
            if candidate.holds(face.box.centre):
                yield Face(face.points, face.blendshapes, face.box, score)
