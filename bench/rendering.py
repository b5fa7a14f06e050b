"""What it costs to draw a clip of landmarks.

    python -m bench.rendering [--repeats 21]

Draws 49 frames at 480×720 in each style on one thread: a made-up face 250 px high that moves a few pixels from frame to
frame. Beside ``draw_clip`` stand the same picture edge by edge, one ``cv2.line`` each, and with MediaPipe's own
``draw_landmarks``, which the released inference calls. All three allocate their clip; lines and dots must agree to the
pixel, or the bench stops. They take turns; times are medians, ratios the medians of each turn's.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from mediapipe.tasks.python.components.containers.landmark import NormalizedLandmark
from mediapipe.tasks.python.vision import FaceLandmarksConnections, drawing_utils
from numpy.typing import NDArray

from landmarks.drawing import STYLES, Style, draw_clip
from landmarks.record import POINTS
from shards.schema import FRAMES, HEIGHT, WIDTH

FACE_HEIGHT_PX = 250
MOVEMENT_PX = 2.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="turns of each style (default: %(default)s)")
    args = parser.parse_args()

    cv2.setNumThreads(1)
    points = moving_face()
    print(f"ms for {FRAMES} frames at {HEIGHT}×{WIDTH}, one thread, median of {args.repeats}")
    print(f"{'style':<6} {'edges':>5} {'draw_clip':>9} {'edge by edge':>12} {'ratio':>5} {'MediaPipe':>9} {'ratio':>5}")
    for name, style in STYLES.items():
        ways: list[Callable[[], NDArray[np.uint8]]] = [
            lambda name=name: draw_clip(points, HEIGHT, WIDTH, name),
            lambda style=style: by_edge(points, style),
            lambda style=style: by_mediapipe(points, style),
        ]
        if not all(np.array_equal(way(), ways[0]()) for way in ways[1:]):
            raise SystemExit(f"{name}: the ways of drawing do not agree")
        ours, edges, mediapipe = zip(*([seconds(way) for way in ways] for _ in range(args.repeats)), strict=True)
        print(
            f"{name:<6} {sum(len(line) - 1 for _, line in style.lines):5d} {1e3 * statistics.median(ours):9.1f} "
            f"{1e3 * statistics.median(edges):12.1f} {median_ratio(ours, edges):5.2f} "
            f"{1e3 * statistics.median(mediapipe):9.1f} {median_ratio(ours, mediapipe):5.2f}"
        )


def moving_face() -> NDArray[np.float64]:
    """``[49, 478, 2]`` px: random landmarks in the middle of the picture, each with some jitter over time."""
    rng = np.random.default_rng(1)
    face = [WIDTH / 2, HEIGHT / 2] + FACE_HEIGHT_PX * rng.uniform([-0.4, -0.5], [0.4, 0.5], (POINTS, 2))
    return np.asarray(face + rng.normal(0, MOVEMENT_PX, (FRAMES, POINTS, 2)))


def by_edge(points: NDArray[np.float64], style: Style) -> NDArray[np.uint8]:
    """The clip with one ``cv2.line`` an edge, all ends inside."""
    canvas = np.zeros((FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    edges = [(colour, a, b) for colour, line in style.lines for a, b in itertools.pairwise(line)]
    for picture, pixels in zip(canvas, np.floor(points).astype(int).tolist(), strict=True):
        for colour, a, b in edges:
            cv2.line(picture, pixels[a], pixels[b], colour)
        draw_dots(picture, pixels, style)
    return canvas


def by_mediapipe(points: NDArray[np.float64], style: Style) -> NDArray[np.uint8]:
    """The clip with MediaPipe's routine, all ends inside."""
    canvas = np.zeros((FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    colours = {edge: colour for colour, line in style.lines for edge in itertools.pairwise(line)}
    connections = [FaceLandmarksConnections.Connection(*edge) for edge in colours]
    specs = {edge: drawing_utils.DrawingSpec(colour, thickness=1) for edge, colour in colours.items()}
    for picture, frame in zip(canvas, points, strict=True):
        landmarks = [NormalizedLandmark(x, y) for x, y in (frame / [WIDTH, HEIGHT]).tolist()]
        drawing_utils.draw_landmarks(picture, landmarks, connections, None, specs)
        draw_dots(picture, np.floor(frame).astype(int).tolist(), style)
    return canvas


def draw_dots(picture: NDArray[np.uint8], pixels: list[list[int]], style: Style) -> None:
    """The squares on pupils and nose."""
    for colour, landmark, side in style.dots:
        x, y = pixels[landmark]
        picture[y - side // 2 : y - side // 2 + side, x - side // 2 : x - side // 2 + side] = colour


def seconds(way: Callable[[], NDArray[np.uint8]]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def median_ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """Median over the turns of our time divided by theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
