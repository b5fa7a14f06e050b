"""How true the landmark geometry is to MediaPipe's, and how well a motion survives on another face.

    python -m bench.retarget --videos *.mp4 [--style a1_3d]

Two tables. For each video: MediaPipe's own pose matrix against ours, the reprojection, the stored record against full
precision, and the video driven by its own first frame. For every ordered pair of videos: the motion of one on the first
frame of the other. What each column is, bench/README.md says.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from curation.video import FrameReader, probe, sample_indices
from faceloom.models import model_path
from landmarks.drawing import STYLES, draw_clip
from landmarks.extract import extract
from landmarks.geometry import CanonicalFace, metric_landmarks, read_geometry, reproject
from landmarks.landmarker import Landmarker
from landmarks.mediapipe_backend import MediaPipeBackend
from landmarks.mouth import lip_gap_cm
from landmarks.record import LandmarkRecord, dequantise, interpolate_missing, quantise, to_crop
from landmarks.retarget import transfer_expression, transfer_rotation
from landmarks.topology import EYES
from shards.schema import FPS, FRAMES, HEIGHT, WIDTH

REPEATS = 15


@dataclass(frozen=True)
class Subject:
    """A video's record, and what MediaPipe itself says of its frames."""

    name: str
    record: LandmarkRecord
    mediapipe_points: np.ndarray  # [K, 478, 3] of the whole frame, where MediaPipe found a face in it
    mediapipe_pose: np.ndarray  # [K, 4, 4]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--style", choices=STYLES, default="a1_3d")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    canonical = read_geometry(model_path("face_landmarker", "bench.retarget"))
    backend = MediaPipeBackend(canonical)
    subjects = list(read_subjects(args.videos, canonical))
    print_geometry(subjects, backend, canonical)
    print_pairs(subjects, backend, canonical)
    print_times(subjects, backend, args.style)


def read_subjects(videos: list[Path], canonical: CanonicalFace) -> Iterator[Subject]:
    """Each video at 12 fps: our record, and MediaPipe's matrices of the frames as a whole."""
    task_file = model_path("face_landmarker", "bench.retarget")
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(task_file)), output_facial_transformation_matrixes=True
    )
    landmarker, reference = Landmarker(task_file), vision.FaceLandmarker.create_from_options(options)
    for video in videos:
        probed = probe(str(video))
        results = []

        def frames() -> Iterator[np.ndarray]:
            for frame in FrameReader(probed).frames(sample_indices(probed.pts_s, FPS)):  # noqa: B023
                seen = reference.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame)))
                results.extend(zip(seen.face_landmarks, seen.facial_transformation_matrixes, strict=True))  # noqa: B023
                yield frame

        record = interpolate_missing(extract(frames(), landmarker, canonical))
        record = record.frames(np.flatnonzero(np.isfinite(record.points).all(axis=(1, 2))))
        points = np.array([[(p.x, p.y, p.z) for p in face] for face, _ in results], np.float32).reshape(-1, 478, 3)
        yield Subject(video.stem, record, points, np.array([pose for _, pose in results]).reshape(-1, 4, 4))


def print_geometry(subjects: list[Subject], backend: MediaPipeBackend, canonical: CanonicalFace) -> None:
    """The first table: one row a video."""
    print(f"{len(subjects)} videos at {FPS} fps")
    print("video            frames  matrices   pose   reproj.px  stored px   own first frame: all %  shape %  worst %")
    for subject in subjects:
        record = subject.record
        w, h = record.width, record.height
        ours = metric_landmarks(subject.mediapipe_points, w, h, canonical)
        pose_error = np.abs(ours.pose - subject.mediapipe_pose).max(initial=-np.inf)
        back = reproject(ours.points, ours.pose, w, h) - subject.mediapipe_points[..., :2] * [w, h]
        window = (0, 0, w, h)
        exact = to_crop(record.points, (w, h), window, (WIDTH, HEIGHT))
        stored = to_crop(dequantise(quantise(record.points)), (w, h), window, (WIDTH, HEIGHT))
        whole, shape = self_error(record, backend)
        print(
            f"{subject.name:<16} {len(record):6d} {len(ours.pose):9d} {pose_error:8.1e} "
            f"{np.abs(back).max(initial=-np.inf):9.1e} "
            f"{np.abs(stored - exact).max():9.3f}  {100 * whole.mean():22.1f} {100 * shape.mean():8.2f} "
            f"{100 * shape.max():9.2f}"
        )


def self_error(record: LandmarkRecord, backend: MediaPipeBackend) -> tuple[np.ndarray, np.ndarray]:
    """Mean landmark error of each frame in shares of the distance between the irises.

    First of the picture as a whole, place and size included, which the mode takes from the reference; then of what the
    mode claims to keep, with each frame moved and scaled (not turned) onto the truth.
    """
    size = np.array([record.width, record.height], np.float64)
    truth = record.points[..., :2] * size
    moved = backend.onto(record, record.frames(slice(0, 1))) * size
    eyes = np.linalg.norm(truth[:, 468] - truth[:, 473], axis=1)
    whole = np.linalg.norm(moved - truth, axis=2).mean(axis=1) / eyes
    moved -= moved.mean(axis=1, keepdims=True)
    truth = truth - truth.mean(axis=1, keepdims=True)
    scale = np.sum(moved * truth, axis=(1, 2)) / np.sum(moved**2, axis=(1, 2))
    return whole, np.linalg.norm(scale[:, None, None] * moved - truth, axis=2).mean(axis=1) / eyes


def print_pairs(subjects: list[Subject], backend: MediaPipeBackend, canonical: CanonicalFace) -> None:
    """The second table: every motion on every other's first frame, in summary and the worst by name."""
    columns: dict[str, list[float]] = {}
    names = []
    for driver, other in itertools.permutations(subjects, 2):
        names.append(f"{driver.name} on {other.name}")
        for column, value in pair_figures(driver.record, other.record.frames(slice(0, 1)), backend, canonical).items():
            columns.setdefault(column, []).append(value)
    print(f"\n{len(names)} ordered pairs")
    print(f"{'':<50}{'min':>9}{'median':>9}{'max':>9}   worst")
    for column, values in columns.items():
        worst = int(np.argmin(values) if "correlation" in column else np.argmax(values))
        print(
            f"{column:<50}{min(values):9.4f}{statistics.median(values):9.4f}{max(values):9.4f}   "
            f"{names[worst]} {values[worst]:.4f}"
        )


def pair_figures(
    driving: LandmarkRecord, reference: LandmarkRecord, backend: MediaPipeBackend, canonical: CanonicalFace
) -> dict[str, float]:
    """What bench/README.md names, of one driver on one face."""
    w, h = reference.width, reference.height
    shown = backend.onto(driving, reference)
    motion = metric_landmarks(driving.points, driving.width, driving.height, canonical)
    face = metric_landmarks(reference.points, w, h, canonical)
    pose = transfer_rotation(motion.pose, face.pose[0])
    shape = transfer_expression(motion.points, driving.blendshapes, face.points[0], reference.blendshapes[0])
    assert np.allclose(reproject(shape, pose, w, h) / [w, h], shown, atol=1e-5), "the shape is not what is shown"
    still = reproject(np.broadcast_to(face.points, shape.shape), pose, w, h) / [w, h]
    outside = np.any((shown < 0) | (shown > 1), axis=2)
    excused = np.any((still < 0) | (still > 1), axis=2)
    every = np.arange(468)
    return {
        "identity: rigid distances, mean deviation": deviation(shape, face.points[0], canonical.basis),
        "  the driver's own, undriven": deviation(motion.points, face.points[0], canonical.basis),
        "identity: mean distance of all points": abs(mean_distance(shape) / mean_distance(face.points) - 1),
        "all distances, mean deviation": deviation(shape, face.points[0], every),
        "  the driver's own, undriven ": deviation(motion.points, face.points[0], every),
        "lip gap as drawn, correlation with the driver's": correlation(
            drawn_gap(shown, w, h), lip_gap_cm(motion.points)
        ),
        "points outside that the pose does not put there": float((outside & ~excused).sum()),
        "pupil outside its eye, share of frames": pupils_outside(shape),
        "  in the driver's own eyes": pupils_outside(motion.points),
    }


def deviation(faces: np.ndarray, reference: np.ndarray, points: np.ndarray) -> float:
    """Mean over pairs of ``points`` of how far their mean distance is from the reference's, as a share of it."""
    upper = np.triu_indices(len(points), 1)
    total = np.zeros(len(upper[0]))
    for face in faces[:, points]:
        total += np.linalg.norm(face[upper[0]] - face[upper[1]], axis=1)
    wanted = np.linalg.norm(reference[points][upper[0]] - reference[points][upper[1]], axis=1)
    return float(np.abs(total / len(faces) / wanted - 1).mean())


def mean_distance(faces: np.ndarray) -> float:
    """Mean distance between the mesh points of ``faces[T, 478, 3]``, over pairs and frames."""
    upper = np.triu_indices(468, 1)
    return float(np.mean([np.linalg.norm(f[upper[0]] - f[upper[1]], axis=1).mean() for f in faces[:, :468]]))


def drawn_gap(shown: np.ndarray, width: int, height: int) -> np.ndarray:
    """Distance of the inner lips in the picture, px; the turning of the head is in it."""
    return np.linalg.norm((shown[:, 13] - shown[:, 14]) * [width, height], axis=1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's."""
    return float(np.corrcoef(a, b)[0, 1])


def pupils_outside(faces: np.ndarray) -> float:
    """Share of eyes, seen from the front, whose pupil lies more than half a millimetre outside the lids."""
    out = 0
    for face in faces[..., :2].astype(np.float32):
        for eye in EYES:
            x, y = face[eye.iris[0]].tolist()
            out += cv2.pointPolygonTest(face[list(eye.contour)].reshape(-1, 1, 2), (x, y), True) < -0.05
    return out / (2 * len(faces))


def print_times(subjects: list[Subject], backend: MediaPipeBackend, style: str) -> None:
    """Milliseconds for a clip of 49 frames on one thread, medians over the videos long enough."""
    clips = [s.record.frames(slice(0, FRAMES)) for s in subjects if len(s.record) >= FRAMES]
    if not clips:
        return
    size = (clips[0].width, clips[0].height)
    pixels = [backend.own(clip) * np.array([WIDTH, HEIGHT], np.float32) for clip in clips]
    steps: dict[str, Callable[[int], object]] = {
        "retarget (pose, shape, projection)": lambda i: backend.onto(clips[i], clips[i - 1].frames(slice(0, 1))),
        "place in a crop": lambda i: to_crop(clips[i].points, size, (0, 0, *size), (WIDTH, HEIGHT)),
        f"draw, {style}, {HEIGHT}x{WIDTH}": lambda i: draw_clip(pixels[i], HEIGHT, WIDTH, style),
    }
    print(f"\nms for {FRAMES} frames, one thread, median of {REPEATS} repeats over {len(clips)} videos")
    for name, step in steps.items():
        times = []
        for repeat in range(REPEATS * len(clips)):
            start = time.perf_counter()
            step(repeat % len(clips))
            times.append(1e3 * (time.perf_counter() - start))
        print(f"{name:<46}{statistics.median(times):9.1f}")


if __name__ == "__main__":
    main()
