"""Log lines that a program can read."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from faceloom.logs import log_file, set_up

logger = logging.getLogger("curation.run")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    packages = [
        logging.getLogger(name)
        for name in ("faceloom", "curation", "landmarks", "shards", "training", "animation", "evaluation")
    ]
    before = [(package, package.level, list(package.handlers)) for package in packages]
    yield
    for package, level, handlers in before:
        package.setLevel(level)
        package.handlers[:] = handlers


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_in_the_file_has_time_message_the_runs_context_and_the_clips_own_fields(tmp_path: Path) -> None:
    file = tmp_path / "telemetry" / "curate.jsonl"
    with log_file(file, command="curate", run="0a1b"):
        logger.warning(
            "the %s worker is lost:\nsegfault",
            "face",
            extra={"clip_id": "3f2a", "clip": "ä.mp4", "cause": "WorkerDied"},
        )
    (line,) = lines(file)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "warning",
        "logger": "curation.run",
        "message": "the face worker is lost:\nsegfault",
        "command": "curate",
        "run": "0a1b",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "clip_id": "3f2a",
        "clip": "ä.mp4",
        "cause": "WorkerDied",
    }


def test_an_exception_has_its_traceback_and_infos_are_in_the_file(tmp_path: Path) -> None:
    with log_file(tmp_path / "log"):
        logger.info("told")
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")
    told, failed = lines(tmp_path / "log")
    assert told["message"] == "told"
    assert "traceback" not in told
    assert "ValueError: bad" in failed["traceback"]


def test_a_resumed_run_goes_on_in_the_same_file_and_nothing_is_written_after_a_run(tmp_path: Path) -> None:
    for run in ("first", "second"):
        with log_file(tmp_path / "log", run=run):
            logger.warning("one")
        logger.warning("between runs")
    assert [line["run"] for line in lines(tmp_path / "log")] == ["first", "second"]


def test_a_file_that_cannot_be_written_is_warned_of_and_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with log_file(tmp_path / "file" / "log"):
        logger.warning("told")
    assert [record.getMessage() for record in caplog.records] == [f"no log in {tmp_path}/file/log: File exists", "told"]


def test_a_person_reads_warnings_without_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    set_up()  # as the next command of the same process does
    logger.info("not worth a line")
    logger.warning("clip %s failed", "3f2a", extra={"traceback": "Traceback …"})
    assert capsys.readouterr().err == "warning: clip 3f2a failed\n"


def test_the_environment_asks_for_json_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACELOOM_LOG", "json")
    set_up()
    logger.info("recycled", extra={"stage": "face"})
    logging.getLogger("mediapipe").error("noise")
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["level"], line["message"], line["stage"]) == ("info", "recycled", "face")
