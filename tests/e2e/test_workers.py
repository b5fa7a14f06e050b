"""Workers that crash, with the runner itself and a true Ray."""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from curation.config import CurationConfig
from curation.drafts import Draft
from curation.ledger import Decision, read_ledger
from curation.preflight import pool_sizes, prepare
from curation.run import Runner
from curation.sources import Clip, write_manifest
from curation.workers import FaceStage, FlowStage
from faceloom import config
from faceloom.cluster import connect
from faceloom.progress import Progress
from shards.verify import verify
from tests.e2e.command import CHEAP_SETTINGS

pytestmark = pytest.mark.e2e


class _FaceStage(FaceStage):
    """Dies as a decoder with a bug would."""

    def decide(self, clip: Clip) -> list[tuple[Decision, Draft | None]]:
        if clip.source_key == "kills the face worker":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().decide(clip)


class _FlowStage(FlowStage):
    """Dies as a process out of memory would."""

    def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:
        if decision.clip.source_key == "kills the flow worker":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().finish(decision, draft)


@pytest.fixture
def no_ray_left() -> Iterator[None]:
    """The session's process is connected to no cluster afterwards."""
    yield
    ray.shutdown()


def _run(manifest: Path, out: Path, *more: str) -> Progress:
    settings = config.load(CurationConfig, "demo", [*CHEAP_SETTINGS, *more])
    sizes = pool_sizes(settings.run, ray.cluster_resources())
    return Runner(prepare(settings, manifest, out), sizes, lambda progress: None).run()


@pytest.mark.usefixtures("no_ray_left")
def test_a_clip_that_kills_its_worker_twice_has_failed_and_no_other_is_lost(
    footage: dict[str, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And metrics and log tell of it."""
    caplog.set_level("INFO")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    man = footage["talking_man.mp4"].path
    clips = [
        Clip("test", "kills the face worker", man),
        Clip("test", "kills the flow worker", man),
        footage["too_short.mp4"],
        Clip("test", "innocent", man),
        footage["frozen.mp4"],
    ]
    write_manifest(clips, tmp_path / "manifest.parquet")
    monkeypatch.setattr("curation.run.FaceWorker", ray.remote(_FaceStage))
    monkeypatch.setattr("curation.run.FlowWorker", ray.remote(_FlowStage))
    connect("local")

    progress = _run(tmp_path / "manifest.parquet", tmp_path / "dataset")

    rows = {row["source_key"]: row for row in read_ledger(tmp_path / "dataset").to_pylist()}
    assert {key: (row["outcome"], row["stage"], row["rule"] or row["error"]) for key, row in rows.items()} == {
        "kills the face worker": ("failed", "face", "WorkerDied"),
        "kills the flow worker": ("failed", "flow", "WorkerDied"),
        "too_short.mp4": ("rejected", None, "too_short"),
        "innocent": ("kept", None, None),
        "frozen.mp4": ("rejected", None, "frozen"),
    }
    assert "was lost 2 times" in rows["kills the face worker"]["message"]
    assert rows["kills the flow worker"]["found_share"] == 1.0, "what the face stage measured is kept"
    assert (progress.decided, progress.losses) == (5, {"face: WorkerDied": 2, "flow: WorkerDied": 2})
    assert verify(tmp_path / "dataset") == []

    told = _scraped(3, "outcome", "because", "stage", "cause", "step")
    assert {key[1:3]: count for key, count in told.items() if key[0] == "clips_total"} == {
        ("kept", ""): 1,
        ("rejected", "too_short"): 1,
        ("rejected", "frozen"): 1,
        ("failed", "WorkerDied"): 2,
    }
    for stage in ("face", "flow"):
        assert told["worker_deaths_total", "", "", stage, "WorkerDied", ""] == 2
        assert told["retries_total", "", "", stage, "", ""] == 1
    assert told["clips_decided", "", "", "", "", ""] == 5
    tars = (tmp_path / "dataset" / "shards").glob("*.tar")
    assert told["shard_bytes_total", "", "", "", "", ""] == sum(tar.stat().st_size for tar in tars)
    assert told["step_seconds_count", "", "", "", "", "probe"] == 4, "all but the one of which nothing came back"
    lines: list[Any] = [record for record in caplog.records if getattr(record, "clip_id", "") == clips[0].clip_id]
    assert [(line.stage, line.cause) for line in lines] == [("face", "WorkerDied")] * 4, "lost, again, lost, failed"


def _scraped(blocks: int, *tags: str) -> dict[tuple[str, ...], float]:
    """What Ray's endpoint on this machine has of our metrics, by name and these tags, once all ``blocks`` are there."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with urllib.request.urlopen(url) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        values = {
            (sample.name.removeprefix("ray_faceloom_"), *(sample.labels.get(tag, "") for tag in tags)): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("ray_faceloom_") and not sample.name.endswith("_bucket")
        }
        if values.get(("blocks_committed_total", *("" for _ in tags))) == blocks:
            return values
        time.sleep(0.5)
    raise AssertionError(f"not all blocks are told of: {values}")
