"""Footage with a known fault, made of footage without: what the filters are measured on.

Every builder is a pure function of frames, uint8 RGB ``[T, H, W, 3]``, and of numbers; none looks at what the filters do.
``bench/filter_cases.py`` says which composites there are and what must become of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

ASPECT = 16 / 9
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Person:
    """One person alone: ``frames[T, H, W, 3]``, 12 a second, and where the face is, ``boxes[T, 4]`` (x0, y0, x1, y1, px)."""

    name: str
    frames: np.ndarray
    boxes: np.ndarray

    @property
    def height(self) -> int:
        """Of the frame, px."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Of the frame, px."""
        return int(self.frames.shape[2])

    @property
    def face_wh(self) -> np.ndarray:
        """Median width and height of the face, px."""
        return np.asarray(np.median(self.boxes[:, 2:] - self.boxes[:, :2], axis=0))

    @property
    def head(self) -> np.ndarray:
        """The box ``[4]`` that holds hair, ears and chin in all frames, px; it may reach out of the frame."""
        size = np.tile(self.face_wh, 2) * [-0.25, -0.45, 0.25, 0.2]
        return np.concatenate([self.boxes[:, :2].min(0), self.boxes[:, 2:].max(0)]) + size

    def lasting(self, count: int) -> "Person":
        """``count`` frames: played to the end, back to the beginning, and so on, so that nothing jumps."""
        last = len(self.frames) - 1
        at = np.abs((np.arange(count) + last) % (2 * last) - last)
        return replace(self, frames=self.frames[at], boxes=self.boxes[at])

    def sized(self, height: int) -> "Person":
        """Resized to ``height`` lines, in proportion; the width is even."""
        width = max(2, round(self.width * height / self.height / 2) * 2)
        if (height, width) == self.frames.shape[1:3]:
            return self
        method = cv2.INTER_AREA if height < self.height else cv2.INTER_CUBIC
        frames = np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in self.frames])
        return replace(self, frames=frames, boxes=self.boxes * np.tile([width / self.width, height / self.height], 2))

    def backwards(self) -> "Person":
        """From the last frame to the first."""
        return replace(self, frames=self.frames[::-1], boxes=self.boxes[::-1])

    def flipped(self) -> "Person":
        """As seen in a mirror."""
        boxes = self.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [self.width, 0, self.width, 0]
        return replace(self, frames=np.ascontiguousarray(self.frames[:, :, ::-1]), boxes=boxes)


def shifted(person: Person, dx: int) -> Person:
    """Moved ``dx`` px to the right, the picture's edge drawn out behind."""
    if dx == 0:
        return person
    frames = moved(person.frames, np.full(len(person.frames), dx))
    return replace(person, frames=frames, boxes=person.boxes + np.array([dx, 0, dx, 0]))


def widened(person: Person, width: int, at: float = 0.5) -> Person:
    """The picture ``width`` px wide (even), ``at`` = 0 at the left edge to 1 at the right one, its own sides drawn out.

    The drawn-out sides carry a still texture of ±6, since an even area is something else: a bar.
    """
    height, own = person.height, person.width
    if own >= width:
        return person
    left = round((width - own) * at)
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 1)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), height / 60)[..., None]
    texture *= 6 / np.abs(texture).max()
    texture[:, left : left + own] = 0
    frames = np.empty((len(person.frames), height, width, 3), np.uint8)
    for i, frame in enumerate(person.frames):
        wide = cv2.copyMakeBorder(frame, 0, 0, left, width - own - left, cv2.BORDER_REPLICATE)
        soft = cv2.GaussianBlur(wide, (0, 0), height / 40)
        soft[:, left : left + own] = frame
        frames[i] = np.clip(soft + texture, 0, 255)
    return replace(person, frames=frames, boxes=person.boxes + np.array([left, 0, left, 0]))


@dataclass(frozen=True)
class Cutout:
    """A head cut out of its footage: ``frames[T, h, w, 3]``, how much of each px is seen ``alpha[h, w, 1]``, and its face.

    ``face_wh`` is the median width and height of the face in it, ``faces[T, 4]`` its box in each frame: x0, y0, x1, y1, px.
    """

    frames: np.ndarray
    alpha: np.ndarray
    face_wh: np.ndarray
    faces: np.ndarray


def cut_out(person: Person, face_px: float, *, framed: bool = False) -> Cutout:
    """The head of ``person``, its face ``face_px`` high; soft-edged, or ``framed`` as a picture on a wall."""
    x0, y0, x1, y1 = (round(float(v)) for v in person.head)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(person.width, x1), min(person.height, y1)
    scale = face_px / float(person.face_wh[1])
    size = (max(4, round((x1 - x0) * scale)), max(4, round((y1 - y0) * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    frames = np.stack([cv2.resize(f[y0:y1, x0:x1], size, interpolation=method) for f in person.frames])
    w, h = size
    if framed:
        edge = max(1, round(min(w, h) / 25))
        frames[:, :edge] = frames[:, -edge:] = frames[:, :, :edge] = frames[:, :, -edge:] = 40
        alpha = np.ones((h, w, 1), np.float32)
    else:
        ys, xs = np.mgrid[0:h, 0:w]
        radius = np.hypot((xs - (w - 1) / 2) / (w / 2), (ys - (h - 1) / 2) / (h / 2))
        alpha = np.clip((1.02 - radius) / 0.12, 0, 1).astype(np.float32)[..., None]
    per_px = np.tile(np.array(size) / [x1 - x0, y1 - y0], 2)
    return Cutout(frames, alpha, person.face_wh * scale, (person.boxes - [x0, y0, x0, y0]) * per_px)


def free_place(main: Person, cutout: Cutout, dx: int = 0) -> tuple[int, int] | None:
    """Left and top of where ``cutout`` fits beside the main head, once that is shifted by ``dx`` px, on the wider side.

    None where it does not fit.
    """
    h, w = cutout.alpha.shape[:2]
    left, right = float(main.head[0]) + dx, main.width - float(main.head[2]) - dx
    if h > main.height or w > max(left, right):
        return None
    x = (left - w) / 2 if left >= right else main.width - right + (right - w) / 2
    return round(x), round((main.height - h) * 0.4)


def pasted(frames: np.ndarray, cutout: Cutout, places: Sequence[tuple[int, int]], shown: np.ndarray) -> np.ndarray:
    """``cutout`` on the frames where ``shown[T]``, left and top at ``places[T]``, which may lie partly outside."""
    result = frames.copy()
    height, width = frames.shape[1:3]
    h, w = cutout.alpha.shape[:2]
    for i in np.flatnonzero(shown):
        x, y = places[i]
        x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
        if x0 >= x1 or y0 >= y1:
            continue
        part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        alpha, head = cutout.alpha[part], cutout.frames[i % len(cutout.frames)][part]
        result[i, y0:y1, x0:x1] = np.rint(alpha * head + (1 - alpha) * result[i, y0:y1, x0:x1])
    return result


def crossing(width: int, cutout: Cutout, top: int, shown: np.ndarray) -> list[tuple[int, int]]:
    """Places of a cutout that walks from the left edge to the right one while ``shown[T]``."""
    w = cutout.alpha.shape[1]
    steps = np.zeros(len(shown))
    steps[shown] = np.linspace(0, 1, int(shown.sum()))
    return [(round(float(s) * (width - w)), top) for s in steps]


def side_by_side(left: Person, right: Person) -> np.ndarray:
    """Two people, each in half of a frame of the left one's size, their faces in the middle of the halves."""
    right = right.sized(left.height)
    half = left.width // 4 * 2
    return np.concatenate([_centred(left, half), _centred(right, half)], axis=2)


def _centred(person: Person, width: int) -> np.ndarray:
    wide = widened(person, width)
    x = float(np.median((wide.boxes[:, 0] + wide.boxes[:, 2]) / 2))
    left = int(np.clip(round(x - width / 2), 0, wide.width - width))
    return wide.frames[:, :, left : left + width]


def dissolved(first: np.ndarray, second: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The last ``length`` frames of ``first`` become the first of ``second``; also the second's weight in each, ``[T]``."""
    ramp = (np.arange(length) + 1) / (length + 1)
    weight = np.concatenate([np.zeros(len(first) - length), ramp, np.ones(len(second) - length)])
    mixed = [
        cv2.addWeighted(a, 1 - float(share), b, float(share), 0)
        for a, b, share in zip(first[len(first) - length :], second[:length], ramp, strict=True)
    ]
    return np.concatenate([first[: len(first) - length], np.stack(mixed), second[length:]]), weight


def frozen(frames: np.ndarray, start: int, length: int) -> np.ndarray:
    """Stands still for ``length`` frames from ``start``, then goes on where it stood; as many frames as before."""
    at = np.concatenate([np.arange(start), np.repeat(start, length), np.arange(start + 1, len(frames))])
    return frames[at[: len(frames)]]


def stuttering(frames: np.ndarray) -> np.ndarray:
    """Every second frame shows the one before it: half the frame rate, played as if it were whole."""
    return frames[np.arange(len(frames)) // 2 * 2]


def blurred(frames: np.ndarray, sigma_px: float) -> np.ndarray:
    """Out of focus."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma_px) for frame in frames])


def smeared(frames: np.ndarray, length_px: int) -> np.ndarray:
    """Motion blur: every px spread over ``length_px`` columns."""
    return np.stack([cv2.blur(frame, (max(1, length_px), 1)) for frame in frames])


def barred(frames: np.ndarray, top: int, side: int, colour: Rgb) -> np.ndarray:
    """Bars of ``top`` lines above and below, and of ``side`` columns at both sides, around the whole picture."""
    return np.stack([cv2.copyMakeBorder(f, top, top, side, side, cv2.BORDER_CONSTANT, value=colour) for f in frames])


def moved(frames: np.ndarray, dx: np.ndarray, dy: np.ndarray | None = None) -> np.ndarray:
    """Each frame shifted by ``dx[T]``, ``dy[T]`` whole px, its edge drawn out behind it."""
    dy = np.zeros(len(frames)) if dy is None else dy
    size = frames.shape[2], frames.shape[1]
    return np.stack(
        [
            cv2.warpAffine(f, np.array([[1, 0, x], [0, 1, y]], np.float32), size, borderMode=cv2.BORDER_REPLICATE)
            for f, x, y in zip(frames, dx, dy, strict=True)
        ]
    )


def covered(person: Person, shown: np.ndarray, colour: Rgb = (198, 150, 125)) -> np.ndarray:
    """A hand before nose and mouth in the frames where ``shown[T]``: a skin-coloured blob that trembles."""
    frames = person.frames.copy()
    rng = np.random.default_rng(1)
    shade = cv2.GaussianBlur(rng.normal(0, 1, frames.shape[1:3]).astype(np.float32), (0, 0), person.height / 40)
    shade *= 14 / np.abs(shade).max()
    for i in np.flatnonzero(shown):
        x0, y0, x1, y1 = person.boxes[i]
        w, h = x1 - x0, y1 - y0
        centre = np.array([(x0 + x1) / 2, y0 + 0.72 * h]) + rng.normal(0, 0.02, 2) * [w, h]
        mask = np.zeros(frames.shape[1:3], np.uint8)
        for offset in (-0.3, -0.1, 0.1, 0.3):  # four fingers, held together
            finger = (round(float(centre[0])), round(float(centre[1] + offset * 0.8 * h)))
            cv2.ellipse(mask, finger, (round(0.5 * w), round(0.12 * h)), -8, 0, 360, 255, -1)
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.8, 0.01 * h))[..., None] / 255
        hand = np.clip(np.array(colour) + shade[..., None], 0, 255)
        frames[i] = np.rint(soft * hand + (1 - soft) * frames[i])
    return frames


def backdrop(height: int, width: int, seed: int) -> np.ndarray:
    """A still picture of nothing: soft shapes in colour with some grain, uint8 ``[height, width, 3]``."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (6, 9, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8))


def on_screen(frames: np.ndarray, behind: np.ndarray, x: int, y: int, border_px: int, colour: Rgb) -> np.ndarray:
    """The whole picture as a window with a border, at ``x``, ``y`` of a picture ``behind[T or 1, H, W, 3]``."""
    height, width = frames.shape[1:3]
    result = np.repeat(behind, len(frames), axis=0) if len(behind) == 1 else behind.copy()
    result[:, y - border_px : y + height + border_px, x - border_px : x + width + border_px] = colour
    result[:, y : y + height, x : x + width] = frames
    return result
