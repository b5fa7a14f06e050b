"""One fixed window a clip, resized to 480 × 720: the framing of SkyReels-A1 §5.1.

A window that followed the face would put its own motion into landmarks and flow, so it stands still for the whole clip.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image
from pydantic import Field

from faceloom.config import Section
from landmarks.landmarker import Box, Region
from shards.schema import HEIGHT, WIDTH

_ASPECT = WIDTH / HEIGHT


class CropConfig(Section):
    """Where the window lies and how far it may stretch the source."""

    mode: Literal["mix", "wide", "portrait", "release"] = "mix"
    """``wide``: the largest window. ``portrait``: the face fills a seeded share of it. ``mix``: either, by clip.
    ``release``: the centre crop or black side bars of the published inference code, blind to the face."""
    portrait_min_share: float = Field(0.25, gt=0, le=1)
    portrait_max_share: float = Field(0.55, gt=0, le=1)
    """Face height over window height in ``portrait`` mode, drawn uniformly by clip id."""
    max_upscale: float = Field(4 / 3, gt=0)
    """Output px per source px; the default asks for 360 source lines."""
    max_pad_share: float = 0.5
    """Largest share of the output's width that may be black bars."""
    max_outside_share: float = 0.1
    """Largest share of frames in which more than 15 % of the face's box lies outside the source frame."""


@dataclass(frozen=True)
class CropWindow:
    """A window of the source frame in px; what lies outside ``columns`` ``[x0, x1)`` of the source becomes black bars."""

    x: int
    y: int
    w: int
    h: int
    mode: str
    columns: tuple[int, int]

    @property
    def upscale(self) -> float:
        """Output px per source px, vertically."""
        return HEIGHT / self.h

    @property
    def shown(self) -> tuple[int, int]:
        """Columns ``[x0, x1)`` of the source that the window shows."""
        return max(self.x, self.columns[0]), min(self.x + self.w, self.columns[1])

    @property
    def pad_share(self) -> float:
        """Share of the window's width that is black bars."""
        x0, x1 = self.shown
        return 1 - (x1 - x0) / self.w

    @property
    def valid_x0x1(self) -> tuple[int, int]:
        """Columns ``[x0, x1)`` of the output that show the source and not a bar."""
        # In integers: w * (WIDTH / w) is a hair below WIDTH for some w, which would cost a column of picture.
        x0, x1 = self.shown
        return -(-(x0 - self.x) * WIDTH // self.w), (x1 - self.x) * WIDTH // self.w

    def part_inside(self, box: Box) -> float:
        """Share of ``box`` (source px) that the window shows."""
        x0, x1 = self.shown
        width = min(x1, box.x1) - max(x0, box.x0)
        height = min(self.y + self.h, box.y1) - max(self.y, box.y0)
        return max(0.0, width) * max(0.0, height) / box.area if box.area else 0.0


def choose_window(
    boxes: np.ndarray, face_height_px: float, content: Region, clip_id: str, config: CropConfig
) -> CropWindow:
    """The one window for a clip whose face lies at ``boxes[T, 4]`` (landmark bounding boxes x0, y0, x1, y1, source px).

    ``face_height_px`` is the median forehead-to-chin height; ``content`` the part of the frame that may be shown, which is
    all of it unless the source has bars of its own. The head box (hair, chin, ears) of every frame is united,
    2 % outliers aside; the window holds that union, the face's centre at 0.42 of its height where the frame allows. Sources
    too tall or too close for 3:2 get black bars at the sides. Heights are multiples of 4, so that 3:2 is exact.
    """
    mode = config.mode
    left_edge, top_edge, width, height = content
    columns = (left_edge, left_edge + width)
    if mode == "release":
        return _release_window(content)
    if mode == "mix":
        mode = "wide" if _draw(clip_id, "mode") < 0.5 else "portrait"
    y0, y1 = boxes[:, 1], boxes[:, 3]
    heads = head_boxes(boxes)
    left, top = np.percentile(heads[:, :2], 2, axis=0)
    right, bottom = np.percentile(heads[:, 2:], 98, axis=0)
    least = max(1.05 * (bottom - top), 1.05 * (right - left) / _ASPECT, face_height_px / 0.65)
    fit = min(height, width / _ASPECT)
    low, high = config.portrait_min_share, config.portrait_max_share
    wanted = face_height_px / (low + (high - low) * _draw(clip_id, "share")) if mode == "portrait" else fit
    # Where bars cannot be avoided the window is no larger than it must be, for that would only add to them.
    tall = least if least > fit else max(wanted, least)
    limit = height if least > fit else fit
    # Never below the smallest window that the upscale limit allows, where the source has that many lines.
    tall = max(tall, HEIGHT / config.max_upscale - 1e-6)
    window_h = max(4, int(min(np.ceil(tall / 4), limit // 4)) * 4)
    window_w = window_h * WIDTH // HEIGHT
    face_y = float(np.median((y0 + y1) / 2))
    y = face_y - 0.42 * window_h
    if window_h >= bottom - top:
        y = float(np.clip(y, bottom - window_h, top))
    return CropWindow(
        x=_inside((left + right) / 2 - window_w / 2, window_w, left_edge, width),
        y=_inside(y, window_h, top_edge, height),
        w=window_w,
        h=window_h,
        mode=mode,
        columns=columns,
    )


def head_boxes(faces: np.ndarray) -> np.ndarray:
    """Boxes ``[T, 4]`` (x0, y0, x1, y1) that hold hair, ears and chin of the landmark bounding boxes ``faces[T, 4]``."""
    size = np.tile(faces[:, 2:] - faces[:, :2], 2)
    return np.asarray(faces + size * [-0.25, -0.45, 0.25, 0.20])


def choose_window_without(
    boxes: np.ndarray,
    face_height_px: float,
    content: Region,
    avoid: Sequence[Box],
    clip_id: str,
    config: CropConfig,
) -> CropWindow:
    """:func:`choose_window`, which shows nothing of ``avoid`` (boxes, source px) where limits and faces allow it.

    If the window of the whole ``content`` shows some of them, it is looked for on the largest side of them that has all of
    ``boxes``; where that needs more enlargement or bars than ``config`` allows, the first window stays.
    """
    first = window = choose_window(boxes, face_height_px, content, clip_id, config)
    shown = [box for box in avoid if window.part_inside(box) > 0]
    if not shown:
        return first
    keep = Box(*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    corners = np.array([[box.x0, box.y0, box.x1, box.y1] for box in shown])
    around = Box(*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist())
    for side in _sides_of(around, content, keep):
        window = choose_window(boxes, face_height_px, side, clip_id, config)
        allowed = window.upscale <= config.max_upscale and window.pad_share <= config.max_pad_share
        if allowed and not any(window.part_inside(box) > 0 for box in avoid):
            return window
    return first


def render_window(frame: np.ndarray, window: CropWindow) -> np.ndarray:
    """Cut ``window`` out of ``frame`` (uint8 RGB ``[H, W, 3]``) and resize it to ``[480, 720, 3]``.

    Shrinking averages areas and enlarging is bicubic; ``release`` windows use Pillow's bicubic, as the published code does.
    """
    x0, x1 = window.shown
    inside = frame[window.y : window.y + window.h, x0:x1]
    left, right = x0 - window.x, window.x + window.w - x1
    if left or right:
        inside = cv2.copyMakeBorder(inside, 0, 0, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    if window.mode == "release":
        return np.asarray(Image.fromarray(inside).resize((WIDTH, HEIGHT)))
    method = cv2.INTER_AREA if window.h > HEIGHT else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(inside, (WIDTH, HEIGHT), interpolation=method))


def outside_share(boxes: np.ndarray, content: Region) -> float:
    """Share of ``boxes[T, 4]`` (source px) of which more than 15 % of the area lies outside the picture ``content``."""
    x0, y0, x1, y1 = boxes.T
    left, top, width, height = content
    inside_w = np.clip(np.minimum(x1, left + width) - np.maximum(x0, left), 0, None)
    inside_h = np.clip(np.minimum(y1, top + height) - np.maximum(y0, top), 0, None)
    area = (x1 - x0) * (y1 - y0)
    return float(np.mean(inside_w * inside_h < 0.85 * area))


def _release_window(content: Region) -> CropWindow:
    """``crop_and_resize`` of SkyReels-A1's ``inference.py``, rounding included."""
    x, y, width, height = content
    columns = (x, x + width)
    if height / width < HEIGHT / WIDTH:
        crop = int(height / HEIGHT * WIDTH)
        return CropWindow(x + (width - crop) // 2, y, crop, height, "release", columns)
    pad = int((height * WIDTH / HEIGHT - width) / 2)
    return CropWindow(x - pad, y, width + 2 * pad, height, "release", columns)


def _sides_of(avoid: Box, content: Region, keep: Box) -> list[Region]:
    """The parts of ``content`` left, right, above and below ``avoid`` that hold all of ``keep``; the largest first."""
    x0, y0, w, h = content
    x1, y1 = x0 + w, y0 + h
    left, right = (int(np.clip(v, x0, x1)) for v in (np.floor(avoid.x0), np.ceil(avoid.x1)))
    above, below = (int(np.clip(v, y0, y1)) for v in (np.floor(avoid.y0), np.ceil(avoid.y1)))
    sides = []
    if keep.x1 <= left:
        sides.append((x0, y0, left - x0, h))
    if keep.x0 >= right:
        sides.append((right, y0, x1 - right, h))
    if keep.y1 <= above:
        sides.append((x0, y0, w, above - y0))
    if keep.y0 >= below:
        sides.append((x0, below, w, y1 - below))
    return sorted(sides, key=lambda side: -side[2] * side[3])


def _inside(start: float, length: int, low: int, extent: int) -> int:
    """Shift a span back inside ``[low, low + extent]``; one longer than that shows all of it."""
    spare = extent - length
    return round(float(np.clip(start, low + min(0, spare), low + max(0, spare))))


def _draw(clip_id: str, purpose: str) -> float:
    """A number in [0, 1) that belongs to the clip, whatever machine or order it is processed in."""
    digest = hashlib.sha256(f"{clip_id}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
