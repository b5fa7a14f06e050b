"""What ``faceloom app`` does with uploads, in processes apart from the server: previews, and the videos themselves."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from animation.animate import Animation, Pair, animate, prepare
from animation.animate_config import AnimateConfig
from animation.apart import Report
from animation.portrait import Portrait, read_portrait
from curation.given_files import image_size, naming
from curation.video import FrameReader, probe, sample_indices
from faceloom.errors import UserError
from landmarks.backend import BackendName
from landmarks.drawing import draw_on
from landmarks.face_reader import FaceReader
from landmarks.landmarker import Box, landmark_box
from landmarks.record import LandmarkRecord

_PREVIEW_PX = 640
_GREEN, _YELLOW = (60, 220, 110), (255, 200, 40)
_LOOK_FPS, _LOOK_FRAMES = 4, 20


@dataclass(frozen=True)
class PreviewAsk:
    """A file to look at before it is animated."""

    kind: Literal["portrait", "driving"]
    path: Path
    config: AnimateConfig


@dataclass(frozen=True)
class Preview:
    """A picture of what was found in the file, and what there is to say about it."""

    picture: Path
    told: str


@dataclass(frozen=True)
class AnimateAsk:
    """Two files and how to animate them."""

    portrait: Path
    driving: Path
    config: AnimateConfig


class Previewer:
    """Finds the face in one uploaded file; pictures are written to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What is shown are MediaPipe's landmarks, whatever moves them later.
        self._reader = FaceReader("mediapipe", "faceloom app")

    def __call__(self, ask: PreviewAsk, report: Report) -> Preview:  # noqa: ARG002 - it takes no time worth telling
        """The face of the file. Raises :class:`UserError` for what is not accepted or shows no face."""
        check_limits(ask.kind, ask.path, ask.config)
        picture, told = self._portrait(ask) if ask.kind == "portrait" else self._driver(ask)
        path = self._folder / f"{secrets.token_hex(8)}.jpg"
        Image.fromarray(picture).save(path, quality=90)
        return Preview(path, told)

    def _portrait(self, ask: PreviewAsk) -> tuple[NDArray[np.uint8], str]:
        portrait = read_portrait(ask.path, self._reader, ask.config.portrait)
        told = [f"Face found, {portrait.box.height:.0f} px high in {size_of(portrait.picture)}."]
        if portrait.stitched:
            told.append("The part in the yellow frame is animated and put back into the picture.")
        told += [note.replace(f"{ask.path} ", "The picture ") + "." for note in portrait.notes]
        return marked(portrait.picture, portrait.record, _framed(portrait)), " ".join(told)

    def _driver(self, ask: PreviewAsk) -> tuple[NDArray[np.uint8], str]:
        with naming(ask.path, "driving"):
            probed = probe(str(ask.path))
            # Not only the first frame: many videos begin with a fade or a title.
            looked = sample_indices(probed.pts_s, _LOOK_FPS)[:_LOOK_FRAMES]
            for index, frame in zip(looked.tolist(), FrameReader(probed).frames(looked), strict=True):
                try:
                    record = self._reader.still(frame)
                except UserError:
                    continue
                at_s = float(probed.pts_s[index] - probed.pts_s[0])
                where = "in the first frame" if index == 0 else f"from {at_s:.1f} s on"
                sound = "with sound" if probed.has_audio else "without sound"
                length_s = probed.duration_s + (1 / probed.fps if probed.fps else 0)
                return marked(frame, record, None), f"Face found {where}; {length_s:.1f} s, {size_of(frame)}, {sound}."
            seconds = len(looked) / _LOOK_FPS
            raise UserError(f"no face is found in the first {seconds:g} s; it must look towards the camera")


class Maker:
    """Animates uploaded pairs with the model of ``checkpoint``; videos are written to ``folder``."""

    def __init__(self, checkpoint: str, config: AnimateConfig, folder: Path) -> None:
        from animation.loading import load_pipeline

        self._folder = folder
        self._pipeline = load_pipeline(checkpoint, config.load)
        backend: BackendName = config.landmarks or self._pipeline.trained_on.backend
        self._reader = FaceReader(backend, "faceloom app")

    def __call__(self, ask: AnimateAsk, report: Report) -> Animation:
        """The video, and one of it beside what it was made from. Raises :class:`UserError`."""
        check_limits("portrait", ask.portrait, ask.config)
        check_limits("driving", ask.driving, ask.config)
        name = secrets.token_hex(8)
        pair = Pair(ask.portrait, ask.driving, self._folder / f"{name}.mp4", self._folder / f"{name}_beside.mp4")
        prepared = prepare(pair, self._pipeline, self._reader, ask.config, report)
        return animate(prepared, self._pipeline, ask.config, report)


def check_limits(kind: Literal["portrait", "driving"], path: Path, config: AnimateConfig) -> None:
    """Raise :class:`UserError` for a file that is larger or longer than ``config.app`` allows, before it is decoded."""
    limits = config.app
    size_mb = path.stat().st_size / 1e6
    if size_mb > limits.max_mb:
        raise UserError(f"{path} has {size_mb:.0f} MB, up to {limits.max_mb} are accepted")
    if kind == "portrait":
        width, height = image_size(path)
    else:
        with naming(path, "driving"):
            probed = probe(str(path))
        width, height = probed.width, probed.height
        if probed.duration_s > limits.max_seconds:
            raise UserError(
                f"{path} lasts {probed.duration_s:.0f} s, up to {limits.max_seconds:g} are accepted; cut a part out of it"
            )
    if width * height > limits.max_megapixels * 1e6:
        raise UserError(
            f"{path} has {width}x{height} px, up to {limits.max_megapixels:g} million are accepted; shrink it"
        )


def size_of(picture: NDArray[np.uint8]) -> str:
    """Its width and height, for a person."""
    return f"{picture.shape[1]}×{picture.shape[0]} px"


def marked(picture: NDArray[np.uint8], record: LandmarkRecord, window: Box | None) -> NDArray[np.uint8]:
    """``picture`` uint8 [H, W, 3], shrunk, with the landmarks of ``record``, its box in green and ``window`` in yellow."""
    height, width = picture.shape[:2]
    scale = _PREVIEW_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    drawn = draw_on(np.asarray(shown, np.uint8), record.points[0, :, :2] * np.array(size))
    box = landmark_box(record.points[0], width, height)
    for rectangle, colour in ((box, _GREEN), (window, _YELLOW)):
        if rectangle is not None:
            corners = np.array([rectangle.x0, rectangle.y0, rectangle.x1, rectangle.y1]) * scale
            x0, y0, x1, y1 = corners.round().astype(int).tolist()
            cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
    return drawn


def _framed(portrait: Portrait) -> Box | None:
    if not portrait.stitched:
        return None
    window = portrait.window
    x0, x1 = window.shown
    return Box(x0, window.y, x1, window.y + window.h)
