"""The page of an evaluation: one self-contained HTML file with the numbers, the videos and their curves."""

import base64
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.config import EvaluateConfig
from evaluation.pairs import Pair
from evaluation.panels import Panels, panels, start
from evaluation.run import Evaluation
from evaluation.video import VideoReport
from faceloom.apart import apart
from faceloom.page.html import assemble
from shards.storage import write_atomic

PAGE_FILE = "evaluation.html"

_SCRIPTS = ("charts.js", "player.js", "tables.js", "page.js")
_DEADLINE_S = 300.0
_FIRST = ("expression", "truth_mae", "legacy_expression")
"""The worst by the first of these that is measured are shown first."""
_CHARTS = (
    ("Expression", "distance of blendshapes, 0..1", {"driver": "expression", "truth": "truth_expression"}),
    ("Head, turns since the first frame", "deg", {"driver": "relative_pose_deg"}),
    ("Head, as it is", "deg", {"driver": "pose_deg", "truth": "truth_pose_deg"}),
    (
        "Lip gap",
        "cm",
        {"result": "lip_gap_cm", "driver": "driver_lip_gap_cm", "truth": "truth_lip_gap_cm"},
    ),
    ("Flicker", "levels of 255", {"result": "flicker"}),
    ("Pixels", "mean absolute error, levels of 255", {"truth": "truth_mae"}),
)
"""Title, unit, and the curves by whose they are, or by what the result is held against."""


def write_page(
    evaluation: Evaluation,
    summary: Mapping[str, Any],
    config: EvaluateConfig,
    out: Path,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Write the page to ``out``, whose folder must exist; videos are decoded in processes of their own."""
    order = _worst_first(evaluation.reports)[: config.shown_videos]
    pairs: list[tuple[Pair, float]] = [(evaluation.pairs[i], config.shown_seconds) for i in order]
    workers = config.workers or os.cpu_count() or 1
    shown = []
    for i, made in zip(order, apart(panels, pairs, workers, _DEADLINE_S, start), strict=True):
        drawn = made or Panels(note=f"its decoder died, or took more than {_DEADLINE_S:g} s")
        shown.append(_shown(evaluation.reports[i], drawn))
        say(f"{len(shown)} of {len(order)} videos of the page")
    contents = {
        **summary,
        "rows": [_row(report) for report in evaluation.reports if not report.failure],
        "shown": shown,
    }
    write_atomic(out, assemble("Faceloom evaluation", files("evaluation") / "assets", _SCRIPTS, contents))


def _worst_first(reports: Sequence[VideoReport]) -> list[int]:
    good = [i for i, report in enumerate(reports) if not report.failure]
    for name in _FIRST:
        values = {i: reports[i].measures[name].value for i in good if name in reports[i].measures}
        if any(value is not None for value in values.values()):
            # One of which nothing is known is worse than all that are measured.
            return sorted(good, key=lambda i: -math.inf if (value := values.get(i)) is None else -value)
    return good


def _row(report: VideoReport) -> dict[str, Any]:
    return {
        "video": report.name,
        "frames": report.frames,
        "fps": report.fps,
        "measures": {
            name: {"value": each.value, "coverage": each.coverage, "offset": each.offset, "reason": each.reason}
            for name, each in report.measures.items()
        },
    }


def _shown(report: VideoReport, drawn: Panels) -> dict[str, Any]:
    charts = []
    for title, unit, names in _CHARTS:
        curves = {whose: _numbers(report.curves[name]) for whose, name in names.items() if name in report.curves}
        if curves:
            charts.append({"title": title, "unit": unit, "curves": curves})
    return {
        "video": report.name,
        "mp4": base64.b64encode(drawn.video).decode("ascii"),
        "columns": drawn.columns,
        "note": drawn.note,
        "fps": report.fps,
        "frames": report.frames,
        "charts": charts,
    }


def _numbers(curve: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.4g}") for value in curve.tolist()]
