"""Sources behind URLs: fetched once, decoded here, named by their URL, gone afterwards."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from s3fs import S3FileSystem

from curation import run as curation_run
from curation import workers
from curation.config import CurationConfig
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Rejected
from curation.sources import Clip
from curation.workers import FaceStage
from faceloom import transfers
from tests import s3 as faults
from tests import videos
from tests.s3 import BUCKET, SECRET_KEY, Endpoint

REMOTE = Clip("set", "a.mp4", "s3://footage/in/a.mp4")
SLOW_DOWN = faults.error("503 Slow Down", "SlowDown")


@pytest.fixture
def stage(s3: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FaceStage]:
    """A face stage without models, whose scratch is below ``tmp_path / "scratch"``; waits are not waited for."""
    monkeypatch.setattr(transfers, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    (tmp_path / "scratch").mkdir()

    def make(**storage: Any) -> FaceStage:
        made = object.__new__(FaceStage)
        settings = {"scratch": str(tmp_path / "scratch"), "tries": 3, **storage}
        made._config = CurationConfig.model_validate({"storage": settings})
        made._all_statistics = False
        made._tools = None  # type: ignore[assignment]
        return made

    return make


def video_file(path: Path) -> Path:
    return videos.write(path, [videos.numbered(number) for number in range(10)])


def put(s3: Endpoint, data: bytes, key: str = "in/a.mp4") -> None:
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=data)
    s3.lines.clear()


def fetched(s3: Endpoint) -> int:
    return s3.count("^GET /footage/in/")


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def failure(decided: list[tuple[Decision, Any]]) -> Failed:
    ((decision, _),) = decided
    assert isinstance(decision.outcome, Failed)
    return decision.outcome


def test_a_source_is_fetched_once_for_its_size_and_its_decision_and_then_removed(
    s3: Endpoint, stage: Callable[..., FaceStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = video_file(tmp_path / "a.mp4")
    put(s3, video.read_bytes())
    read: list[bytes] = []

    def examine(clip: Clip, *given: Any) -> None:
        assert clip == REMOTE
        findings, path = given[2], Path(given[-1])
        assert path.suffix == ".mp4"
        read.append(path.read_bytes())
        findings.rejected = Rejected("motion", 0.0, 1.0)

    monkeypatch.setattr(workers, "examine", examine)
    worker = stage()
    assert worker.allowance_s(REMOTE) > 0
    assert len(left_in(tmp_path / "scratch")) == 2, "the copy and its lock"
    ((decision, _),) = worker.decide(REMOTE)

    assert read == [video.read_bytes()]
    assert fetched(s3) == 1
    assert decision.wall_s["fetch"] > 0
    assert decision.retries == 0
    assert left_in(tmp_path / "scratch") == []


def test_an_error_names_the_url_and_not_the_copy(s3: Endpoint, stage: Callable[..., FaceStage], tmp_path: Path) -> None:
    put(s3, b"no video at all" * 100)
    ((decision, _),) = stage().decide(REMOTE)
    outcome = decision.outcome
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.error) == ("probe", "TruncatedVideoError")
    assert outcome.message.startswith(REMOTE.path)
    assert str(tmp_path) not in outcome.message
    assert str(tmp_path) not in str(decision.traceback)
    assert left_in(tmp_path / "scratch") == []


def test_an_empty_object_is_an_empty_file(s3: Endpoint, stage: Callable[..., FaceStage]) -> None:
    put(s3, b"")
    assert failure(stage().decide(REMOTE)).error == "EmptyFileError"


def test_a_missing_object_fails_as_a_missing_file_does(s3: Endpoint, stage: Callable[..., FaceStage]) -> None:
    outcome = failure(stage().decide(REMOTE))
    assert (outcome.stage, outcome.error) == ("fetch", "NotAFileError")
    assert outcome.message == f"{REMOTE.path} does not exist; restore the file or remove it from the manifest"


def test_a_source_larger_than_the_scratch_names_the_limit(s3: Endpoint, stage: Callable[..., FaceStage]) -> None:
    put(s3, bytes((1 << 20) + 1))
    outcome = failure(stage(source_mib=1).decide(REMOTE))
    assert (outcome.stage, outcome.error) == ("fetch", "TooLargeError")
    assert "storage.source_mib, 1" in outcome.message
    assert outcome.error in curation_run._BAD_FILES, "it is the file's own fault"


def test_throttling_that_passes_is_counted_and_decides_nothing(
    s3: Endpoint, stage: Callable[..., FaceStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, video_file(tmp_path / "a.mp4").read_bytes())

    def examine(_: Clip, *given: Any) -> None:
        given[2].rejected = Rejected("motion", 0.0, 1.0)

    monkeypatch.setattr(workers, "examine", examine)
    with s3.fault("^GET /footage/in/", SLOW_DOWN, times=2):
        ((decision, _),) = stage().decide(REMOTE)
    assert decision.outcome == Rejected("motion", 0.0, 1.0)
    assert decision.retries == 2


def test_spent_tries_are_a_failure_of_the_fetch_that_is_not_the_file_s_and_not_tried_once_more(
    s3: Endpoint, stage: Callable[..., FaceStage]
) -> None:
    put(s3, b"x")
    worker = stage()
    with s3.fault("^GET /footage/in/", SLOW_DOWN):
        worker.allowance_s(REMOTE)
        ((decision, _),) = worker.decide(REMOTE)
    outcome = decision.outcome
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.error) == ("fetch", "FetchError")
    assert "SlowDown" in outcome.message
    assert outcome.error not in curation_run._BAD_FILES, "twenty in a row end the run"
    assert fetched(s3) == 3
    assert decision.retries == 2


def test_refused_credentials_are_told_without_them(
    s3: Endpoint, stage: Callable[..., FaceStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG0")
    with s3.fault(".", faults.needs_key):
        ((decision, _),) = stage().decide(REMOTE)
    outcome = decision.outcome
    assert isinstance(outcome, Failed)
    assert outcome.error == "FetchError"
    assert "InvalidAccessKeyId" in outcome.message
    assert "AWS_PROFILE" in outcome.message
    for secret in (SECRET_KEY, "AKIAWRONGWRONGWRONG0"):
        assert secret not in outcome.message + str(decision.traceback)


def test_a_copy_is_removed_also_when_the_machine_is_at_fault(
    s3: Endpoint, stage: Callable[..., FaceStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, b"x")

    def examine(*_: Any) -> None:
        assert left_in(tmp_path / "scratch")
        raise MemoryError

    monkeypatch.setattr(workers, "examine", examine)
    with pytest.raises(MemoryError):
        stage().decide(REMOTE)
    assert left_in(tmp_path / "scratch") == []


def test_a_local_source_is_read_where_it_lies(
    stage: Callable[..., FaceStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip("set", "a.mp4", str(video_file(tmp_path / "a.mp4")))

    def examine(clip: Clip, *given: Any) -> None:
        assert given[-1] == clip.path
        assert not list((tmp_path / "scratch").iterdir())
        given[2].rejected = Rejected("motion", 0.0, 1.0)

    monkeypatch.setattr(workers, "examine", examine)
    ((decision, _),) = stage().decide(clip)
    assert decision.outcome != Kept()
    assert "fetch" not in decision.wall_s
