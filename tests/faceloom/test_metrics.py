"""What a run tells Prometheus, and the dashboard that shows it. That Ray's endpoint has it: ``tests/e2e/test_workers.py``."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from faceloom.metrics import METRICS, RunMetrics
from faceloom.progress import Oldest, Progress

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


class Recorder:
    """In the place of Ray's counters, gauges and histograms."""

    told: list[tuple[str, float, dict[str, str]]] = []  # noqa: RUF012 - emptied for each test

    def __init__(self, name: str, tag_keys: tuple[str, ...], **_: object) -> None:
        self._name, self._tags = name, tag_keys

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self._tags)
        self.told.append((self._name.removeprefix("faceloom_"), value, tags))

    set = observe = inc


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> RunMetrics:
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(f"faceloom.metrics.ray_metrics.{kind}", Recorder)
    monkeypatch.setattr(Recorder, "told", [])
    return RunMetrics("curate", "/data/set")


def told(name: str) -> list[tuple[float, dict[str, str]]]:
    return [
        (value, {tag: text for tag, text in tags.items() if tag not in ("command", "dataset")})
        for metric, value, tags in Recorder.told
        if metric == name
    ]


def test_counters_grow_by_what_came_since_by_outcome_and_rule(metrics: RunMetrics) -> None:
    progress = Progress(clips=10)
    for outcomes in ({"kept": 2}, {"kept": 2, "rejected: motion": 3}, {"kept": 4, "rejected: motion": 3}):
        progress.outcomes = Counter(outcomes)
        metrics.follow(progress)
    kept, rejected = {"outcome": "kept", "because": ""}, {"outcome": "rejected", "because": "motion"}
    assert told("clips") == [(2, kept), (3, rejected), (2, kept)]
    assert all(tags["command"] == "curate" and tags["dataset"] == "/data/set" for _, _, tags in Recorder.told)


def test_clips_of_a_block_that_is_done_anew_are_counted_once(metrics: RunMetrics) -> None:
    progress = Progress(clips=10)
    for kept in (4, 1, 3, 6):
        progress.outcomes = Counter(kept=kept)
        metrics.follow(progress)
    assert sum(value for value, _ in told("clips")) == 6


def test_deaths_have_stage_and_cause(metrics: RunMetrics) -> None:
    metrics.follow(Progress(clips=1, losses=Counter({"flow: DeadlineExceeded": 2})))
    assert told("worker_deaths") == [(2, {"stage": "flow", "cause": "DeadlineExceeded"})]


def test_a_gauge_whose_subject_is_gone_goes_to_zero(metrics: RunMetrics) -> None:
    progress = Progress(clips=1, in_work={"face": 3}, oldest=Oldest("a", "b", "face", 9.0))
    metrics.follow(progress)
    progress.in_work, progress.oldest = {}, None
    metrics.follow(progress)
    assert told("in_work") == [(3, {"stage": "face"}), (0, {"stage": "face"})]
    assert told("oldest_seconds") == [(9.0, {}), (0.0, {})]


def test_a_pool_that_waits_is_one_and_others_are_zero(metrics: RunMetrics) -> None:
    metrics.follow(Progress(clips=1, workers={"face": 2, "flow": 0}, waiting={"flow": "it needs 1 GPU"}))
    assert told("waiting") == [(0.0, {"stage": "face"}), (1.0, {"stage": "flow"})]


def test_what_a_clip_cost_is_counted_by_step_and_spread(metrics: RunMetrics) -> None:
    metrics.spent({"probe": 0.5, "census": 2.0})
    metrics.footage(7.0)
    metrics.committed(1000)
    steps = [(0.5, {"step": "probe"}), (2.0, {"step": "census"})]
    assert told("step_seconds") == told("busy_seconds") == steps
    assert (told("source_seconds"), told("shard_bytes")) == ([(7.0, {})], [(1000, {})])


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = set(re.findall(r"ray_faceloom_\w+", " ".join(EXPRESSIONS)))
    assert {name.removesuffix("_bucket") for name in shown} == {metric.exported for metric in METRICS}


def test_the_dashboard_sorts_by_tags_that_the_metrics_have() -> None:
    tags = {metric.exported: {*metric.tags, "command", "dataset"} for metric in METRICS}
    for expression in EXPRESSIONS:
        names = {name.removesuffix("_bucket") for name in re.findall(r"ray_faceloom_\w+", expression)}
        asked = {tag for group in re.findall(r"by \(([^)]*)\)", expression) for tag in group.split(", ")}
        asked |= set(re.findall(r"(\w+)(?:=~|!=)", expression))
        for name in names:
            assert asked - {"le"} <= tags[name], expression
        assert ("le" in asked) == any("_bucket" in name for name in re.findall(r"ray_faceloom_\w+", expression))


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its source of data is chosen on import, ids are unique, and no two panels lie on each other."""
    assert re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"])
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source["uid"] == "${datasource}" for source in sources)
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells
        assert max(x for x, _ in mine) < 24
        cells |= mine
