"""A result against the video that drove it, and against the truth where there is one.

Frames are held against each other by presentation time, at the result's rate. What a frame's face cannot tell is left out
and counted: every measure says how many of the result's frames it stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.flicker import flicker
from evaluation.footage import Footage, Frame, of_file, of_frames
from evaluation.measure import Measure, absent, mean_of
from evaluation.metrics import METRICS
from evaluation.motion import best_offset, expression_distance, lip_gap_correlation, pose_distance_deg, since
from evaluation.pixels import absolute_error, psnr_db, squared_error, structural_similarity
from evaluation.track import FaceTrack, FaceTracker
from shards.schema import FPS

_NO_FACE = "no frame shows a face both in the result and in the {other}"
_POSE = ("yaw", "pitch", "roll", "pose")
_ASPECT_TOLERANCE = 0.01
_LEAST_SIDE_PX = 11

Curves = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Compared:
    """``measures`` by metric (:mod:`evaluation.metrics`), and ``curves`` by name, each ``[T]`` over the result's frames."""

    measures: dict[str, Measure]
    curves: Curves


def compare_with_truth(
    results: Mapping[str, NDArray[np.uint8]], truth: Path, faces: FaceTracker, fps: float = FPS
) -> dict[str, dict[str, Measure]]:
    """How far each of ``results`` is from the video ``truth``: every metric ``truth_*`` of :mod:`evaluation.metrics`.

    ``results`` are frames uint8 RGB ``[T, H, W, 3]`` at ``fps``, T the same for all. Frame by frame, without a search for an
    offset. Raises :class:`curation.video.VideoError` for a file that cannot be read.
    """
    made = {name: of_frames(frames, fps, name) for name, frames in results.items()}
    true = of_file(truth, fps, max(map(len, made.values())))
    true_face = faces.track(true)
    return {
        name: against_truth(footage, faces.track(footage), true, true_face).measures for name, footage in made.items()
    }


def against_driver(result: FaceTrack, driver: FaceTrack, most_offset: int) -> Compared:
    """Expression, head and lips of the result against the driver's.

    ``driver`` may be longer. One offset of at most ``most_offset`` frames either way, that of the least expression distance,
    holds for all: a result that lags is not also charged for what it shows late.
    """
    offset = best_offset(result.blendshapes, driver.blendshapes, most_offset)
    return _faces(result, driver.read(offset, len(result)), "driver", "", offset)


def against_truth(result: Footage, result_face: FaceTrack, truth: Footage, truth_face: FaceTrack) -> Compared:
    """As :func:`against_driver`, with the pixels, and frame by frame.

    A truth of another size is brought to the result's; one of another shape has no pixels to compare.
    """
    compared = _faces(result_face, truth_face.read(0, len(result)), "truth", "truth_", None)
    pixels, error = _pixels(result, truth)
    kept = {name: measure for name, measure in compared.measures.items() if name in METRICS}
    return Compared(kept | pixels, compared.curves | {"truth_mae": error})


def steadiness(result: Footage, result_face: FaceTrack, driver: Footage, driver_face: FaceTrack) -> Compared:
    """The flicker of the result, and by how much it exceeds the driver's over as many frames."""
    of_result, of_driver = flicker(result, result_face), flicker(driver, driver_face)[: max(0, len(result) - 1)]
    own = mean_of(of_result, "no two neighbouring frames of the result show a face")
    other = mean_of(of_driver, "no two neighbouring frames of the driver show a face")
    excess = Measure(None, 0, own.total, reason=own.reason or other.reason)
    if own.value is not None and other.value is not None:
        excess = Measure(own.value - other.value, min(own.frames, other.frames), own.total)
    curve = np.concatenate([[np.nan], of_result])[: len(result)]
    return Compared({"flicker": own, "flicker_excess": excess}, {"flicker": curve})


def _faces(result: FaceTrack, other: FaceTrack, name: str, prefix: str, offset: int | None) -> Compared:
    """``other`` has the frames to hold against those of the result."""
    nobody = _NO_FACE.format(other=name)
    expression = expression_distance(result.blendshapes, other.blendshapes)
    both = np.flatnonzero(np.isfinite(expression))
    pose = pose_distance_deg(result.pose, other.pose)
    turns = np.full_like(pose, np.nan)
    if len(both):
        turns = pose_distance_deg(since(result.pose, both[0]), since(other.pose, both[0]))
    measures = {f"{prefix}expression": mean_of(expression, nobody, offset)}
    for column, axis in enumerate(_POSE):
        measures[f"{prefix}{axis}_deg"] = mean_of(pose[:, column], nobody, offset)
        measures[f"{prefix}relative_{axis}_deg"] = mean_of(turns[:, column], nobody, offset)
    correlation = lip_gap_correlation(result.lip_gap_cm, other.lip_gap_cm, name, offset)
    measures[f"{prefix}lip_gap_correlation"] = correlation
    curves = {
        f"{prefix}expression": expression,
        f"{prefix}pose_deg": pose[:, 3],
        f"{prefix}relative_pose_deg": turns[:, 3],
        "lip_gap_cm": result.lip_gap_cm,
        f"{name}_lip_gap_cm": other.lip_gap_cm,
    }
    return Compared(measures, curves)


def _pixels(result: Footage, truth: Footage) -> tuple[dict[str, Measure], NDArray[np.float64]]:
    error = np.full(len(result), np.nan)
    names = ("truth_mae", "truth_psnr_db", "truth_ssim")
    if reason := _not_comparable(result, truth):
        return dict.fromkeys(names, absent(reason, len(result))), error
    squares, similar = np.full(len(result), np.nan), np.full(len(result), np.nan)
    for number, (made, true) in enumerate(zip(result, truth, strict=False)):
        fitted = _fitted(true, made)
        error[number], squares[number] = absolute_error(made, fitted), squared_error(made, fitted)
        similar[number] = structural_similarity(made, fitted)
    mean_square = mean_of(squares, "the truth has no frame")
    psnr = mean_square
    if mean_square.value is not None:
        db = psnr_db(mean_square.value)
        known, why = (db, "") if np.isfinite(db) else (None, "equal to the truth in every pixel: infinite")
        psnr = Measure(known, mean_square.frames, mean_square.total, reason=why)
    return dict(zip(names, (mean_of(error, ""), psnr, mean_of(similar, "")), strict=True)), error


def _not_comparable(result: Footage, truth: Footage) -> str:
    shapes = f"the result has {result.width}x{result.height} px and the truth {truth.width}x{truth.height}"
    if abs(result.width * truth.height / (result.height * truth.width) - 1) > _ASPECT_TOLERANCE:
        return f"{shapes}: pictures of another shape"
    return f"{shapes}: too small" if min(result.width, result.height) < _LEAST_SIDE_PX else ""


def _fitted(frame: Frame, like: Frame) -> Frame:
    if frame.shape == like.shape:
        return frame
    method = cv2.INTER_AREA if frame.shape[0] > like.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, like.shape[1::-1], interpolation=method), np.uint8)
