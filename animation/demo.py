"""The demo's last act: a man's first frame, moved as he moved in clips that the model was not trained on.

It is held beside two videos that need no model: that frame standing still, and that frame with noise on it.
"""

import json
import shutil
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from animation.animate import Pair, animate, prepare
from animation.animate_config import AnimateConfig
from animation.loading import load_pipeline
from curation.samples import kept_sample
from evaluation.compare import compare_with_truth
from evaluation.track import FaceTracker
from faceloom.models import model_path
from landmarks.face_reader import FaceReader
from shards.storage import make_folder, write_atomic
from shards.video import decode_video
from training.checkpoint import latest_checkpoint
from training.export import RECORD, export
from training.run_folder import CHECKPOINTS

Results = dict[str, dict[str, dict[str, float | None]]]
"""By clip, then by who made the video (:data:`MAKERS`), then by metric (:data:`METRICS`, :data:`FACE_SHARE`)."""

MAKERS = ("animated", "still", "noise")
METRICS = ("truth_mae", "truth_lip_gap_correlation", "truth_expression", "truth_pose_deg")
FACE_SHARE = "face_share"
"""Beside the metrics: the share of the frames in which there is a face to be measured."""
LEAST_CORRELATION, LEAST_FACE_SHARE = 0.5, 0.5
"""How far the lips must open as the true ones do, and in what share of the frames a face must be found, for the demo to say
that they follow him. Few frames correlate by chance."""

_NOISE_LEVELS = 8.0
"""Standard deviation of the noise on the repeated frame, of 255: as of a camera in the dark."""

_WANTED_BY = "faceloom demo"
_SUMMARY, _MODEL = "summary.json", "model"
_SHEET_FRAMES = (4, 12, 20, 28, 36, 44)
_SHEET_PX = (240, 160)


def animate_held_out(
    run: Path, dataset: Path, source_keys: Collection[str], out: Path, config: AnimateConfig
) -> Results:
    """Animate the first frame of each clip by the whole clip, and compare what comes out with it.

    ``run`` is a finished training run; ``dataset`` holds kept clips of the given ``source_keys``. In ``out``: ``model``, the
    exported checkpoint; for each clip ``CLIP.portrait.png`` and ``CLIP.driving.mp4``, what is given, ``CLIP.mp4``, what is
    made of it, and ``CLIP.side-by-side.mp4``; ``sheet.jpg`` with frames of all, the true above the animated ones;
    ``summary.json``, the results. If they are of the run's last checkpoint, nothing is done. Raises :class:`UserError`.
    """
    newest = latest_checkpoint(run / CHECKPOINTS)
    assert newest is not None
    summary = out / _SUMMARY
    if summary.is_file() and _step_of(out / _MODEL) == newest.step:
        known: Results = json.loads(summary.read_text("utf-8"))
        return known
    make_folder(out)
    if _step_of(out / _MODEL) != newest.step:
        shutil.rmtree(out / _MODEL, ignore_errors=True)
        export(newest.path, "diffusers", out / _MODEL, ema=bool(newest.names("ema")))
    model = load_pipeline(out / _MODEL, config.load)
    results: Results = {}
    rows = []
    with (
        FaceReader("mediapipe", _WANTED_BY) as reader,
        FaceTracker(model_path("face_landmarker", _WANTED_BY)) as tracker,
    ):
        for key in source_keys:
            video = kept_sample(dataset, key)["video.mp4"]
            true = decode_video(video)
            pair = _given(key, video, true[0], out)
            animate(prepare(pair, model, reader, config), model, config)
            made = decode_video(pair.out.read_bytes())
            results[key] = _measured(made, true[0], pair.driving, tracker)
            rows += [_row(true), _row(made)]
    write_atomic(out / "sheet.jpg", _jpeg(np.concatenate(rows)))
    write_atomic(summary, (json.dumps(results, indent=2) + "\n").encode())
    return results


def mean(results: Results, maker: str, metric: str) -> float | None:
    """Over the clips; None unless each of them has a value."""
    values = [clip[maker][metric] for clip in results.values()]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def not_reached(results: Results) -> list[str]:
    """One sentence for each thing that animated clips should be and these are not."""
    missed = []
    error = {maker: mean(results, maker, "truth_mae") for maker in MAKERS}
    for maker in ("still", "noise"):
        own, other = error["animated"], error[maker]
        if own is None or other is None or own >= other:
            missed.append(
                f"what is animated is no nearer to the truth than {maker}: mean absolute error {_number(own)} and "
                f"{_number(other)}"
            )
    lips, share = (mean(results, "animated", name) for name in ("truth_lip_gap_correlation", FACE_SHARE))
    if lips is None or lips < LEAST_CORRELATION or share is None or share < LEAST_FACE_SHARE:
        missed.append(
            f"the lips do not follow: their gap correlates with the true one by {_number(lips)}, over the share "
            f"{_number(share)} of the frames, in which a face is found"
        )
    return missed


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _step_of(model: Path) -> int | None:
    record = model / RECORD
    return int(json.loads(record.read_text("utf-8"))["step"]) if record.is_file() else None


def _given(key: str, video: bytes, first: NDArray[np.uint8], out: Path) -> Pair:
    """The files that the command would be given."""
    name = Path(key).stem
    portrait, driving = out / f"{name}.portrait.png", out / f"{name}.driving.mp4"
    write_atomic(driving, video)
    encoded, png = cv2.imencode(".png", cv2.cvtColor(first, cv2.COLOR_RGB2BGR))
    assert encoded
    write_atomic(portrait, png.tobytes())
    return Pair(portrait, driving, out / f"{name}.mp4", out / f"{name}.side-by-side.mp4")


def _measured(
    made: NDArray[np.uint8], first: NDArray[np.uint8], truth: Path, tracker: FaceTracker
) -> dict[str, dict[str, float | None]]:
    """``truth`` may have another frame rate than the model's: frames are held against each other by time."""
    still = np.repeat(first[None], len(made), axis=0)
    noise = np.random.default_rng(0).normal(0, _NOISE_LEVELS, still.shape)
    videos = {"animated": made, "still": still, "noise": np.clip(np.rint(still + noise), 0, 255).astype(np.uint8)}
    measures = compare_with_truth(videos, truth, tracker)
    return {
        maker: {metric: found[metric].value for metric in METRICS}
        | {FACE_SHARE: found["truth_lip_gap_correlation"].coverage}
        for maker, found in measures.items()
    }


def _row(video: NDArray[np.uint8]) -> NDArray[np.uint8]:
    frames = [cv2.resize(video[frame], _SHEET_PX, interpolation=cv2.INTER_AREA) for frame in _SHEET_FRAMES]
    return np.concatenate(frames, axis=1).astype(np.uint8)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert encoded
    return data.tobytes()
