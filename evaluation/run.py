"""An evaluation: every pair measured apart, then what is of all videos together."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evaluation.config import EvaluateConfig
from evaluation.frechet import frechet_distance
from evaluation.measure import Measure, absent
from evaluation.metrics import METRICS, Metric, Mode
from evaluation.networks import load_networks, present, why_absent
from evaluation.pairs import Pair
from evaluation.video import VideoReport, measure, start
from faceloom.apart import apart
from faceloom.models import model_path


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``reports`` in the order of ``pairs``, each with every metric of ``metrics`` that is not pooled; those are apart."""

    metrics: tuple[Metric, ...]
    pairs: tuple[Pair, ...]
    reports: tuple[VideoReport, ...]
    pooled: Mapping[str, Measure]


def evaluate(
    pairs: Sequence[Pair],
    modes: Collection[Mode],
    config: EvaluateConfig,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation:
    """Measure all ``pairs``. ``say`` gets a line a video.

    A video that cannot be read, kills its process or takes too long has a failure in place of measures. Raises
    :class:`UserError` if MediaPipe's models are missing, or a network that the user supplied cannot be loaded.
    """
    wanted = {*modes, *(["truth"] if any(pair.truth is not None for pair in pairs) else [])}
    metrics = tuple(metric for metric in METRICS.values() if metric.mode in wanted)
    available = present(metrics)
    task_file = model_path("face_landmarker", "faceloom evaluate")
    load_networks(available, config.device)  # here once, where a bad file is an error and not a death
    workers = config.workers or os.cpu_count() or 1
    prepare = partial(start, task_file, frozenset(available), frozenset(modes), config)
    reports = []
    for pair, report in zip(pairs, apart(measure, pairs, workers, config.deadline_s, prepare), strict=True):
        if report is None:
            report = VideoReport(pair.name, f"its process died, or took more than {config.deadline_s:g} s")
        reports.append(_complete(report, metrics, available))
        told = report.failure or f"{report.frames} frames"
        say(f"{len(reports)} of {len(pairs)}: {pair.name}: {told}")
    pooled = {metric.name: _pooled(metric, reports, available, config) for metric in metrics if metric.pooled}
    return Evaluation(metrics, tuple(pairs), tuple(reports), pooled)


def _complete(report: VideoReport, metrics: Sequence[Metric], available: Collection[str]) -> VideoReport:
    """Every metric that was not measured has its reason."""
    if report.failure:
        return report
    for metric in metrics:
        if metric.pooled or metric.name in report.measures:
            continue
        reason = why_absent(metric, available)
        if not reason:
            reason = "there is no truth" if metric.mode == "truth" else "there is no driving video"
        report.measures[metric.name] = absent(reason)
    return report


def _pooled(
    metric: Metric, reports: Sequence[VideoReport], available: Collection[str], config: EvaluateConfig
) -> Measure:
    """The face-FID: it is the one metric of all videos."""
    if reason := why_absent(metric, available):
        return absent(reason)
    made, real = (_together([getattr(report, side) for report in reports]) for side in ("made", "real"))
    total = sum(report.frames for report in reports)
    if min(len(made), len(real)) < config.least_fid_frames:
        reason = f"{len(made)} faces of results and {len(real)} real ones; {config.least_fid_frames} of each are needed"
        return Measure(None, len(made), total, reason=reason)
    return Measure(frechet_distance(made, real), len(made), total)


def _together(features: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    return np.concatenate([np.empty((0, 2048), np.float32), *(each for each in features if each is not None)])
