"""An evaluation as files: two Parquet tables and a summary in JSON."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import faceloom
from evaluation.config import EvaluateConfig
from evaluation.legacy import counts_in_the_mean
from evaluation.measure import Measure
from evaluation.metrics import Metric
from evaluation.networks import present
from evaluation.run import Evaluation
from faceloom.models import file_sha256, sha256_of, user_path
from shards.storage import write_atomic

METRICS_FILE, CURVES_FILE, SUMMARY_FILE = "metrics.parquet", "curves.parquet", "summary.json"

_METRICS = pa.schema(
    [
        pa.field("video", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("coverage", pa.float64()),
        pa.field("frames", pa.int64()),
        pa.field("total", pa.int64()),
        pa.field("offset", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)


def metrics_table(evaluation: Evaluation) -> pa.Table:
    """One row a video and metric; of a video that failed one row without a metric; of a pooled metric one without a video."""
    rows: list[dict[str, Any]] = []
    for report in evaluation.reports:
        if report.failure:
            rows.append({"video": report.name, "reason": report.failure})
        measured = (metric for metric in evaluation.metrics if metric.name in report.measures)
        rows += [_row(report.name, metric, report.measures[metric.name]) for metric in measured]
    rows += [_row(None, metric, evaluation.pooled[metric.name]) for metric in evaluation.metrics if metric.pooled]
    return pa.Table.from_pylist(rows, _METRICS)


def curves_table(evaluation: Evaluation) -> pa.Table:
    """One row a video and frame of the result: its time from the first frame on, and every curve, null where it has none."""
    names = sorted({name for report in evaluation.reports for name in report.curves})
    schema = pa.schema(
        [pa.field("video", pa.string()), pa.field("frame", pa.int64()), pa.field("time_s", pa.float64())]
        + [pa.field(name, pa.float64()) for name in names]
    )
    tables = [
        pa.table(
            {
                "video": [report.name] * report.frames,
                "frame": np.arange(report.frames),
                "time_s": np.arange(report.frames) / report.fps,
                **{name: pa.array(report.curves[name], from_pandas=True) for name in report.curves},
            }
        )
        for report in evaluation.reports
        if report.curves
    ]
    if not tables:
        return schema.empty_table()
    return pa.concat_tables(tables, promote_options="default").select(schema.names).cast(schema)


def summary(evaluation: Evaluation, config: EvaluateConfig) -> dict[str, Any]:
    """Each metric over all videos, which videos failed, and what it was measured with.

    Means and medians are over the videos that have a value; ``videos`` says how many those are. Coverage is over the frames
    of all that did not fail.
    """
    failed = [{"video": report.name, "reason": report.failure} for report in evaluation.reports if report.failure]
    return {
        "faceloom": faceloom.__version__,
        "videos": len(evaluation.reports),
        "failed": failed,
        "metrics": {metric.name: _over_videos(metric, evaluation) for metric in evaluation.metrics},
        "config": config.model_dump(mode="json"),
        "models": _models(evaluation),
    }


def write_tables(evaluation: Evaluation, config: EvaluateConfig, folder: Path) -> dict[str, Any]:
    """Write both tables and the summary into ``folder``, which must exist; returns the summary."""
    told = summary(evaluation, config)
    for name, table in ((METRICS_FILE, metrics_table(evaluation)), (CURVES_FILE, curves_table(evaluation))):
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_atomic(folder / name, buffer.getvalue())
    write_atomic(folder / SUMMARY_FILE, json.dumps(told, indent=2, allow_nan=False).encode())
    return told


def _row(video: str | None, metric: Metric, measure: Measure) -> dict[str, Any]:
    return {
        "video": video,
        "metric": metric.name,
        "mode": metric.mode,
        "value": measure.value,
        "coverage": measure.coverage,
        "frames": measure.frames,
        "total": measure.total,
        "offset": measure.offset,
        "reason": measure.reason or None,
    }


def _over_videos(metric: Metric, evaluation: Evaluation) -> dict[str, Any]:
    measures = [report.measures[metric.name] for report in evaluation.reports if metric.name in report.measures]
    if metric.pooled:
        measures = [evaluation.pooled[metric.name]]
    values = [measure.value for measure in measures if measure.value is not None]
    counted = [value for value in values if counts_in_the_mean(metric.name, value)]
    total = sum(measure.total for measure in measures)
    reasons = {measure.reason for measure in measures if measure.value is None}
    return {
        "mode": metric.mode,
        "unit": metric.unit,
        "better": metric.better,
        "ideal": metric.ideal,
        "published": metric.published,
        "meaning": metric.meaning,
        "mean": float(np.mean(counted)) if counted else None,
        "median": float(np.median(counted)) if counted else None,
        "videos": len(counted),
        "coverage": sum(measure.frames for measure in measures) / total if total else None,
        "reason": "" if values else "; ".join(sorted(reasons)),
    }


def _models(evaluation: Evaluation) -> Mapping[str, str]:
    """Sha256 of every model that took part."""
    used = {name: file_sha256(user_path(name, "faceloom evaluate")) for name in sorted(present(evaluation.metrics))}
    return {"face_landmarker": sha256_of("face_landmarker"), **used}
