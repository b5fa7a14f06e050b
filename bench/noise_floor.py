"""What the motion statistics say of a face that does not move: the floor below which a threshold filters noise.

    python -m bench.noise_floor --videos *.mp4 [--frames 16]

Of each video a few frames, evenly spaced; each is shown 49 times, every time shifted by up to 2 px, with Gaussian noise of
σ = 4 and saved as a JPEG of quality 50 to 90. The face is followed through these pictures as curation follows it, and
measured as a window of 49 frames at 12 fps. What counts is how far a statistic is from what it is without any of this; for a
range, a speed or an activity that is zero. Its floor is the 95th percentile of that over all frames and videos, so that
one odd frame does not make it. `curation/statistics.py` keeps the floors.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from curation.faces import CensusConfig, FaceFinder
from curation.motion import MotionConfig, motion_statistics
from curation.statistics import STATISTICS
from curation.video import FrameReader, probe
from faceloom.models import model_path
from landmarks.extract import measured_record
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import Box, Face
from shards.schema import FPS, FRAMES

SHIFT_PX = 2
SIGMA = 4.0
JPEG_QUALITY = (50, 90)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16, help="frames of each video (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    task_file = model_path("face_landmarker", "bench.noise_floor")
    finder, canonical = FaceFinder(task_file, CensusConfig()), read_geometry(task_file)
    floors: dict[str, list[float]] = {}
    for video in args.videos:
        for name, floor in measure(video, args.frames, finder, canonical):
            floors.setdefault(name, []).append(floor)
    count = len(floors["head_range_deg"])
    print(f"{count} still faces of {len(args.videos)} videos, {FRAMES} pictures each")
    print(
        f"{'statistic':<26}{'unit':>8}{'median':>9}{'p95':>9}{'largest':>9}{'in table':>10}{'threshold':>11}{'/ p95':>7}"
    )
    motion = MotionConfig().model_dump()
    for name, values in floors.items():
        statistic, floor = STATISTICS[name], float(np.percentile(values, 95))
        threshold = motion.get(f"min_{name}")
        limit = "" if threshold is None else f"{threshold:11.3f}{threshold / floor:7.1f}"
        stored = "" if statistic.noise is None else f"{statistic.noise:.3f}"
        figures = f"{np.median(values):9.3f}{floor:9.3f}{max(values):9.3f}"
        print(f"{name:<26}{statistic.unit:>8}{figures}{stored:>10}{limit}")


def measure(video: Path, count: int, finder: FaceFinder, canonical: CanonicalFace) -> Iterator[tuple[str, float]]:
    """The distances of every statistic of ``count`` frames of ``video``."""
    probed = probe(str(video))
    chosen = np.linspace(0, len(probed.pts_s) - 1, count + 2).round().astype(int)[1:-1]
    for index, frame in zip(chosen, FrameReader(probed).frames(chosen), strict=True):
        faces = finder.census(frame)
        if not faces:
            print(f"{video.name}: no face in frame {index}, left out")
            continue
        still = list(followed([frame], faces[0].box, finder)) * 2
        pictures = perturbed(frame, np.random.default_rng(int(index)))
        noisy = list(followed(pictures, faces[0].box, finder))
        of_still, of_noisy = (statistics_of(faces, frame.shape, canonical) for faces in (still, noisy))
        yield from ((name, abs(value - of_still[name])) for name, value in of_noisy.items())


def perturbed(frame: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
    """49 pictures of the same moment (uint8 RGB ``[H, W, 3]``)."""
    for _ in range(FRAMES):
        dx, dy = random.integers(-SHIFT_PX, SHIFT_PX + 1, 2)
        padded = cv2.copyMakeBorder(frame, *[SHIFT_PX] * 4, cv2.BORDER_REPLICATE)
        top, left = SHIFT_PX - dy, SHIFT_PX - dx
        shifted = padded[top : top + frame.shape[0], left : left + frame.shape[1]]
        noisy = (
            np.clip(shifted + SIGMA * random.standard_normal(frame.shape, np.float32), 0, 255).round().astype(np.uint8)
        )
        quality = int(random.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
        encoded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        yield np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)


def followed(pictures: Iterable[np.ndarray], box: Box, finder: FaceFinder) -> Iterator[Face]:
    """The face in each of ``pictures``, from where it was in the one before; without those that do not show it."""
    for picture in pictures:
        face = finder.follow(picture, box)
        if face is not None:
            box = face.box
            yield face


def statistics_of(faces: Sequence[Face], shape: tuple[int, ...], canonical: CanonicalFace) -> dict[str, float]:
    """The motion statistics of a window that shows ``faces``, of pictures of ``shape`` (height, width, …)."""
    height, width = shape[:2]
    points, blendshapes = np.stack([face.points for face in faces]), np.stack([face.blendshapes for face in faces])
    record, metric = measured_record(points, blendshapes, width, height, canonical)
    return motion_statistics(record.points, metric, record.blendshapes, record.pose, width, height, FPS)


if __name__ == "__main__":
    main()
