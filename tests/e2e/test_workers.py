"""Workers that crash, with the runner itself and a true Ray."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

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
    footage: dict[str, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
