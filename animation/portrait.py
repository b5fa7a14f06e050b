"""The person that is to move: from a picture to the 480×720 canvas that the model animates, with the face on it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curation.crop import CropConfig, CropWindow, choose_window, render_window
from curation.given_files import Picture, naming, read_image
from curation.identity import align_face
from faceloom.config import Section
from faceloom.errors import UserError
from landmarks.drawing import draw
from landmarks.extract import faces_of
from landmarks.face_reader import FaceReader
from landmarks.landmarker import Box, landmark_box
from landmarks.record import LandmarkRecord, to_crop
from shards.schema import HEIGHT, WIDTH
from training.drawings import REFERENCE_STYLE

FOREHEAD, CHIN = 10, 152
_MAX_SIDE, _MAX_PIXELS = 4096, 36_864 * 256
"""Of a video that players can be expected to decode: H.264 level 5.2."""

Stitch = Literal["auto", "always", "never"]


class PortraitConfig(Section):
    """How a portrait is framed."""

    stitch: Stitch = "auto"
    """``never``: the model sees the picture as SkyReels-A1's inference frames it, by a centre crop or black side bars, and
    what it makes is the result. ``always``: it sees a window around the face, which is put back into the picture.
    ``auto``: the latter where the face would be small in the release's frame, or not in it."""
    stitch_below: float = Field(0.25, gt=0, le=1)
    """Face height over frame height below which ``auto`` stitches; training frames have 0.25 to 0.55."""
    window_share: float = Field(0.4, gt=0, le=0.65)
    """Face height over the height of the window around it."""
    min_face_px: float = Field(32.0, gt=0)
    """Face height in the picture below which there is too little of it to animate."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A picture with one face in it, and the part of it that the model animates."""

    picture: Picture
    """uint8 RGB [H, W, 3], both sides even."""
    record: LandmarkRecord
    """The face, one frame, normalised to ``picture``."""
    window: CropWindow
    """What of ``picture`` the canvas shows."""
    stitched: bool
    """Whether frames of the canvas are to be put back into ``picture``."""
    notes: tuple[str, ...]
    """What whoever gave the picture should know."""

    @cached_property
    def canvas(self) -> NDArray[np.uint8]:
        """The portrait in the model's frame, uint8 RGB [480, 720, 3]."""
        # A copy: what Pillow has resized may not be written to, which torch complains of.
        return np.array(render_window(self.picture, self.window))

    @cached_property
    def face(self) -> NDArray[np.uint8]:
        """The aligned face, uint8 RGB [512, 512, 3], cut from the canvas as in training and in the release."""
        return align_face(self.canvas, self.in_canvas(self.record.points[0, :, :2]))

    @cached_property
    def reference_drawing(self) -> NDArray[np.uint8]:
        """The portrait's own landmarks on its canvas, uint8 RGB [480, 720, 3], in the style of reference frames."""
        return draw(self.in_canvas(self.record.points[0, :, :2]), HEIGHT, WIDTH, REFERENCE_STYLE)

    @property
    def box(self) -> Box:
        """The face in px of ``picture``."""
        return landmark_box(self.record.points[0], self.record.width, self.record.height)

    def in_canvas(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """``points[..., 478, 2]``, normalised to the picture, in px of the canvas."""
        window = self.window
        crop = (window.x, window.y, window.w, window.h)
        return to_crop(points, (self.record.width, self.record.height), crop, (WIDTH, HEIGHT))


def read_portrait(path: Path, reader: FaceReader, config: PortraitConfig) -> Portrait:
    """The portrait in the image file ``path``.

    The largest face counts. A picture larger than a video can be is shrunk first. Raises :class:`UserError`, naming the file
    and the remedy, if it cannot be read, if it shows no face or one below ``config.min_face_px``, and if with
    ``stitch: never`` the face is not in the frame.
    """
    notes = []
    picture, shrunk = _fitting(read_image(path))
    if shrunk:
        notes.append(f"{path} is larger than a video can be; it is shrunk to {picture.shape[1]}x{picture.shape[0]} px")
    with naming(path, "portrait"):
        record = reader.still(picture)
    count = len(faces_of(picture, reader.landmarker, small=True))
    if count > 1:
        notes.append(f"{path} shows {count} faces; the largest is animated")
    face_px = face_height_px(record)
    if face_px < config.min_face_px:
        raise UserError(
            f"{path}: its face is {face_px:.0f} px high, and {config.min_face_px:g} are needed; "
            "give a larger picture of it with --portrait"
        )
    window, stitched = _window(record, face_px, config)
    if not stitched and window.part_inside(_box(record)) < 1:
        raise UserError(
            f"{path}: its face is not all in the middle of the picture, which --stitch never animates; "
            "let it be --stitch auto, or cut the picture to a frame of 3:2 around the face"
        )
    return Portrait(picture, record, window, stitched, tuple(notes))


def face_height_px(record: LandmarkRecord) -> float:
    """From forehead to chin, in the first frame of ``record``."""
    ends = record.points[0, [FOREHEAD, CHIN], :2] * [record.width, record.height]
    return float(np.linalg.norm(ends[0] - ends[1]))


def _window(record: LandmarkRecord, face_px: float, config: PortraitConfig) -> tuple[CropWindow, bool]:
    """What the model sees, and whether it is a part that is put back."""
    box = _box(record)
    boxes = np.array([[box.x0, box.y0, box.x1, box.y1]])
    whole = (0, 0, record.width, record.height)
    released = choose_window(boxes, face_px, whole, "", CropConfig(mode="release"))
    small = face_px / released.h < config.stitch_below or released.part_inside(box) < 1
    if config.stitch == "never" or (config.stitch == "auto" and not small):
        return released, False
    # Any enlargement: a picture that is too small for it has been refused.
    framing = CropConfig(
        mode="portrait",
        portrait_min_share=config.window_share,
        portrait_max_share=config.window_share,
        max_upscale=HEIGHT,
    )
    return choose_window(boxes, face_px, whole, "", framing), True


def _box(record: LandmarkRecord) -> Box:
    """The face, as far as it lies in the picture."""
    box = landmark_box(record.points[0], record.width, record.height)
    x0, x1 = np.clip([box.x0, box.x1], 0, record.width)
    y0, y1 = np.clip([box.y0, box.y1], 0, record.height)
    return Box(float(x0), float(y0), float(x1), float(y1))


def _fitting(picture: Picture) -> tuple[Picture, bool]:
    """The picture with even sides that a video can have, and whether it had to be shrunk for that."""
    height, width = picture.shape[:2]
    scale = min(1.0, _MAX_SIDE / max(height, width), (_MAX_PIXELS / (height * width)) ** 0.5)
    if scale < 1:
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    # A line or a column less cannot be seen, stretching can.
    height, width = (side // 2 * 2 or side for side in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width]), scale < 1
