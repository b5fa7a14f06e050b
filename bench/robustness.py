"""Copies of footage that show the same: re-encoded, scaled, mirrored, shaken. Does a verdict or a statistic depend on it?"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.composites import moved
from bench.filter_labels import Result
from bench.filter_runs import FPS, Footage, Store, decide, digest, file_digest, in_pool, look_at_videos, stage
from curation.config import CurationConfig
from curation.expressions import evaluate, statistics_in
from curation.rules import RULES, Rule
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.statistics import STATISTICS
from curation.video import FrameReader, in_span, probe
from shards.schema import FRAMES


def _scaled(frames: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(2, round(side * scale / 2) * 2) for side in frames.shape[1:3])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in frames])


def _mirrored(frames: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frames[:, :, ::-1])


def _shaken(frames: np.ndarray, most_px: int) -> np.ndarray:
    dx, dy = np.random.default_rng(0).integers(-most_px, most_px, (2, len(frames)), endpoint=True)
    return moved(frames, dx.astype(float), dy.astype(float))


@dataclass(frozen=True)
class Variant:
    """A copy: ``edit`` of the frames, x264's ``crf``, and how many px it has for one of the original's."""

    name: str
    edit: Callable[[np.ndarray], np.ndarray]
    crf: int = 14
    scale: float = 1.0


VARIANTS = (
    *(Variant(f"crf {crf}", lambda frames: frames, crf=crf) for crf in (23, 28, 35)),
    *(Variant(f"scale {scale}", partial(_scaled, scale=scale), scale=scale) for scale in (0.5, 0.75, 1.5, 2.0)),
    Variant("mirrored", _mirrored),
    Variant("±2 px", partial(_shaken, most_px=2)),
)
_BY_NAME = {variant.name: variant for variant in VARIANTS}
_ORIGINAL = "original"


def compare_variants(
    videos: Sequence[Footage], cache: Path, processes: int, console: Console
) -> tuple[bool, dict[str, dict[str, Result]]]:
    """Print how verdicts and statistics of the kept windows of ``videos`` change; also every result, by video and variant.

    False when a verdict changes though the original is farther from the threshold than the statistics' noise floor.
    """
    results, _ = look_at_videos(videos, cache, processes)
    spans = {name: _window(result) for name, result in results.items() if result.outcome == "kept"}
    kept = [video for video in videos if video.name in spans]
    tasks = [(v.name, *spans[v.name], name) for v in kept for name in (_ORIGINAL, *_BY_NAME)]
    found: dict[str, dict[str, Result]] = {video.name: {} for video in kept}
    for (name, _, _, variant), result in _results(kept, tasks, cache, processes):
        found[name][variant] = result
    console.print(f"{len(kept)} windows of {FRAMES} frames, {len(VARIANTS)} copies of each")
    changes = _verdict_changes(found)
    for line, excused in changes:
        console.print(f"  {line}{' (threshold inside the noise floor)' if excused else ''}")
    console.print(f"{len(changes)} verdicts of {len(kept) * len(VARIANTS)} changed")
    console.print(_statistics_table(found))
    return all(excused for _, excused in changes), found


Task = tuple[str, float, float, str]


def _window(result: Result) -> tuple[float, float]:
    """From when to when the first sample lasts, s from the video's first frame."""
    start = float(result.samples[0].frames.min()) / FPS
    return start, min(float(result.samples[0].frames.max()) / FPS, start + (FRAMES - 1) / FPS)


def _results(
    kept: Sequence[Footage], tasks: Sequence[Task], cache: Path, processes: int
) -> Iterator[tuple[Task, Result]]:
    store = Store(cache)
    own = {v.name: (file_digest(v.path), v.settings.model_dump_json()) for v in kept}
    code = Path(__file__).read_text()
    keys = {task: digest("variant", code, *own[task[0]], *map(str, task)) for task in tasks}
    left = []
    for task in tasks:
        known = store.result(keys[task])
        if known is None:
            left.append(task)
        else:
            yield task, known
    by_name = {video.name: video for video in kept}
    for task, result in in_pool(_decide_copy, [(by_name[task[0]], task) for task in left], processes):
        store.keep(keys[task], result)
        yield task, result


def _decide_copy(job: tuple[Footage, Task]) -> tuple[Task, Result]:
    video, (name, start_s, stop_s, variant_name) = job
    probed = probe(video.path)
    until = stop_s + 0.5 / probed.fps
    if variant_name == _ORIGINAL:
        clip = Clip("robustness", name, video.path, max(0.0, start_s - 0.5 / probed.fps), until)
        return job[1], decide(stage(_at_scale(video.settings, 1.0)), clip)[0]
    variant = _BY_NAME[variant_name]
    span = in_span(probed.pts_s, max(0.0, start_s - 0.5 / probed.fps), until)
    frames = variant.edit(np.stack(list(FrameReader(probed).frames(span))))
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.mp4"
        compression = SampleVideoConfig(crf=variant.crf, preset="veryfast")
        path.write_bytes(encode_sample(frames, probed.fps, None, compression))
        return job[1], decide(stage(_at_scale(video.settings, variant.scale)), Clip("robustness", name, str(path)))[0]


def _at_scale(settings: CurationConfig, scale: float) -> CurationConfig:
    """The limits that are stated in px of the source, for a copy with other px; every copy with the same kind of crop."""
    character = settings.character.model_copy(update={"min_face_px": settings.character.min_face_px * scale})
    # Which kind a clip has is drawn by its id.
    crop = settings.crop.model_copy(update={"max_upscale": settings.crop.max_upscale / scale, "mode": "wide"})
    return settings.model_copy(update={"character": character, "crop": crop})


# --- what changed ----------------------------------------------------------------------------------------------------


def _verdict_changes(found: Mapping[str, Mapping[str, Result]]) -> list[tuple[str, bool]]:
    """Each changed verdict in words, and whether the original lies within the noise floor of the threshold."""
    changes = []
    for name, results in found.items():
        original = results[_ORIGINAL]
        for variant in VARIANTS:
            result = results[variant.name]
            before, after = original.because or original.outcome, result.because or result.outcome
            if before != after:
                rule = next((rule for rule in RULES if rule.name == result.because), None)
                excused = rule is not None and _near_threshold(rule, original.statistics)
                limit = "" if result.value is None else f" {result.value:.3g} against {result.threshold:.3g}"
                changes.append((f"{name}, {variant.name}: {before}, then {after}{limit}", excused))
    return changes


def _near_threshold(rule: Rule, statistics: Mapping[str, float]) -> bool:
    """Whether moving one statistic of the rule by its noise floor decides the rule otherwise."""
    settings = CurationConfig()

    def passes(measured: Mapping[str, float]) -> bool:
        value = float(evaluate(rule.value, measured, settings))
        threshold = float(evaluate(rule.threshold, measured, settings))
        return value <= threshold if rule.at_most else value >= threshold

    noisy = [name for name in statistics_in(rule.value) if STATISTICS[name].noise and name in statistics]
    shifted = [{**statistics, n: statistics[n] + s * (STATISTICS[n].noise or 0)} for n in noisy for s in (-1, 1)]
    return any(passes(measured) != passes(statistics) for measured in shifted)


def _statistics_table(found: Mapping[str, Mapping[str, Result]]) -> Table:
    """Of every statistic that a copy changed: by how much at most, of all videos, beside its noise floor."""
    groups = {"crf 23": ("crf 23",), "crf 28": ("crf 28",), "crf 35": ("crf 35",), "scale": tuple(
        variant.name for variant in VARIANTS if variant.scale != 1
    ), "mirrored": ("mirrored",), "±2 px": ("±2 px",)}  # fmt: skip
    table = Table("statistic", "unit", *groups, "noise floor", "values", box=None, title="largest change")
    for name, statistic in STATISTICS.items():
        originals = [results[_ORIGINAL].statistics.get(name, float("nan")) for results in found.values()]
        largest = {
            group: max((_change(name, results, v) for results in found.values() for v in members), default=0.0)
            for group, members in groups.items()
        }
        if any(change > 1e-9 for change in largest.values()):
            table.add_row(
                name,
                statistic.unit,
                *(f"{change:.3g}" for change in largest.values()),
                "" if statistic.noise is None else f"{statistic.noise:.3g}",
                f"{np.nanmin(originals):.3g} to {np.nanmax(originals):.3g}",
            )
    return table


def _change(name: str, results: Mapping[str, Result], variant: str) -> float:
    """How far the copy's statistic is from the original's, in px of the original; 0 where either was not measured."""
    before, after = (results[each].statistics.get(name, float("nan")) for each in (_ORIGINAL, variant))
    scale = _BY_NAME[variant].scale
    after *= {"px": 1 / scale}.get(STATISTICS[name].unit, scale if name == "upscale" else 1.0)
    return 0.0 if isnan(before) or isnan(after) else abs(after - before)
