"""Which detector sees a second face, how small it may be, what it invents, and what it costs.

    python -m bench.census --videos DIR [--frames 4] [--height 720]

Faces of each video are pasted into frames of the others, beside the person who is there, at heights from 0.03 to 0.40 of the
frame's. Every detector sees the same pictures; all but those marked "bare" are verified as ``curation.faces`` does.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from curation.faces import MTCNN_FILES, CensusConfig, FaceFinder
from curation.mtcnn import Mtcnn
from curation.video import FrameReader, probe
from faceloom.models import model_path
from landmarks.landmarker import Box

HEIGHTS = (0.03, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.30, 0.40)


@dataclass(frozen=True)
class Scene:
    """A frame of one person: ``pixels[H, W, 3]``, where the face is, and that face cut out with its soft edge."""

    pixels: np.ndarray
    face: Box
    head: np.ndarray
    alpha: np.ndarray


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="videos of one person each")
    parser.add_argument("--frames", type=int, default=4, help="frames of each video (default: %(default)s)")
    parser.add_argument("--height", type=int, default=720, help="lines of the pictures (default: %(default)s)")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    task_file = model_path("face_landmarker", "bench.census")
    finder = FaceFinder(task_file, CensusConfig())
    scenes = [
        s for file in sorted(args.videos.glob("*.mp4")) for s in scenes_of(file, args.frames, args.height, finder)
    ]
    detectors: dict[str, Callable[[np.ndarray], list[Box]]] = {}
    for tiles in (1, 3, 4, 5):
        detectors[f"BlazeFace, {tiles}×{tiles} tiles"] = boxes_of(FaceFinder(task_file, CensusConfig(tiles=tiles)))
    for share in (0.05, 0.07, 0.1):
        config = CensusConfig(detector="mtcnn", mtcnn_min_share=share)
        detectors[f"MTCNN {share}"] = boxes_of(FaceFinder(task_file, config))
    bare = Mtcnn(*(model_path(name, "bench.census") for name in MTCNN_FILES))
    detectors["MTCNN 0.07, bare"] = lambda f: [box for _, box in bare.detect(f, 0.07 * len(f), 0.95)]

    table = Table(title=f"{len(scenes)} frames of {args.height} lines: share of second faces found, by height")
    for heading in ("detector", *(f"{height:.2f}" for height in HEIGHTS), "false a frame", "CPU ms a frame"):
        table.add_column(heading, justify="left" if heading == "detector" else "right")
    for name, detect in detectors.items():
        table.add_row(name, *measured(detect, scenes))
    Console(width=160).print(table)


def scenes_of(file: Path, count: int, lines: int, finder: FaceFinder) -> list[Scene]:
    """``count`` frames spread over the video, brought to ``lines`` lines and cut or drawn out to 16:9."""
    source = probe(str(file))
    at = np.linspace(0, len(source.pts_s) - 1, count + 2)[1:-1].astype(int)
    found = []
    for frame in FrameReader(source).frames(at):
        scale = lines / frame.shape[0]
        pixels = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        missing = lines * 16 // 9 - pixels.shape[1]
        if missing > 0:
            pixels = cv2.copyMakeBorder(pixels, 0, 0, missing // 2, missing - missing // 2, cv2.BORDER_REFLECT)
            # What is drawn out shows mirror images of the person, who is alone: blur them beyond recognition.
            soft = cv2.GaussianBlur(pixels, (0, 0), lines / 24)
            inner = slice(missing // 2, pixels.shape[1] - missing + missing // 2)
            soft[:, inner] = pixels[:, inner]
            pixels = soft
        faces = finder.census(pixels)
        if len(faces) != 1:
            continue
        box = faces[0].box
        x0, x1 = round(box.x0 - 0.25 * box.width), round(box.x1 + 0.25 * box.width)
        y0, y1 = round(box.y0 - 0.45 * box.height), round(box.y1 + 0.2 * box.height)
        if x0 < 0 or x1 > pixels.shape[1]:
            continue
        head = pixels[max(0, y0) : min(lines, y1), x0:x1]
        h, w = head.shape[:2]
        alpha = np.zeros((h, w), np.float32)
        cv2.ellipse(alpha, (w // 2, h // 2), (int(w * 0.46), int(h * 0.46)), 0, 0, 360, 1.0, -1)
        found.append(Scene(pixels, box, head, cv2.GaussianBlur(alpha, (0, 0), h / 40)[..., None]))
    return found


def boxes_of(finder: FaceFinder) -> Callable[[np.ndarray], list[Box]]:
    """The census as a plain detector."""
    return lambda frame: [face.box for face in finder.census(frame)]


def measured(detect: Callable[[np.ndarray], list[Box]], scenes: Sequence[Scene]) -> list[str]:
    """The row of one detector."""
    detect(scenes[0].pixels)
    spent = time.process_time()
    alone = [detect(scene.pixels) for scene in scenes]
    spent = time.process_time() - spent
    false = sum(len(other_than(scene.face, boxes)) for scene, boxes in zip(scenes, alone, strict=True))
    cells = []
    for height in HEIGHTS:
        found = tried = 0
        for i, scene in enumerate(scenes):
            placed = pasted(scene, scenes[(i * 7 + 5) % len(scenes)], height, i)
            if placed is not None:
                picture, (x, y) = placed
                tried += 1
                found += any(box.holds((x, y)) for box in other_than(scene.face, detect(picture)))
        cells.append(f"{found / tried:.2f}" if tried else "-")
    return [*cells, f"{false / len(scenes):.2f}", f"{1000 * spent / len(scenes):.0f}"]


def other_than(face: Box, boxes: list[Box]) -> list[Box]:
    """Those that are not the person's own face."""
    return [box for box in boxes if not (box.iou(face) > 0.3 or face.holds(box.centre))]


def pasted(scene: Scene, other: Scene, height: float, seed: int) -> tuple[np.ndarray, tuple[float, float]] | None:
    """The scene with the other's face ``height`` of the frame high, beside the head, and its centre; None if full."""
    lines, width = scene.pixels.shape[:2]
    # Forehead to chin is what heights are of; a landmark box is about as high.
    scale = height * lines / other.face.height
    h, w = max(4, round(other.head.shape[0] * scale)), max(4, round(other.head.shape[1] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    head, alpha = (cv2.resize(part, (w, h), interpolation=method) for part in (other.head, other.alpha))
    margin = 0.3 * scene.face.width
    spaces = [(0, scene.face.x0 - margin - w), (scene.face.x1 + margin, width - w)]
    spaces = [(low, high) for low, high in spaces if high > low]
    if not spaces or h >= lines:
        return None
    rng = np.random.default_rng(seed)
    low, high = spaces[rng.integers(len(spaces))]
    x, y = int(rng.uniform(low, high)), int(rng.uniform(0, lines - h))
    picture = scene.pixels.copy()
    area = picture[y : y + h, x : x + w]
    mix = alpha[..., None]
    area[:] = np.rint(mix * head + (1 - mix) * area)
    top = other.face.y0 - max(0.0, other.face.y0 - 0.45 * other.face.height)
    return picture, (x + w / 2, y + (top + other.face.height / 2) * scale)


if __name__ == "__main__":
    main()
