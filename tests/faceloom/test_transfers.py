"""Transfers to and from a true S3 endpoint: whole or not at all, tried again when the storage failed, and only then."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from s3fs import S3FileSystem

from faceloom import transfers
from faceloom.location import location
from faceloom.transfers import StorageConfig, TooLarge, attempts, download, read_bytes, upload, write_bytes
from tests import s3 as faults
from tests.s3 import SECRET_KEY, Endpoint

SLOW_DOWN = faults.error("503 Slow Down", "SlowDown")
_PER_TRY = 2
"""Requests that s3fs makes of one try, to be quick; otherwise five."""


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which are not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(transfers, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(S3FileSystem, "retries", _PER_TRY)
    return waited


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """101 MiB: three parts of s3fs."""
    path = tmp_path / "large"
    with path.open("wb") as stream:
        for number in range(101):
            stream.write(bytes([number]) * 2**20)
    return path


def test_bytes_and_files_come_back_as_they_went(s3: Endpoint, tmp_path: Path) -> None:
    write_bytes(location("s3://footage/a/small"), b"small")
    (tmp_path / "local").write_bytes(b"")
    upload(tmp_path / "local", location("s3://footage/a/empty"))
    assert s3.objects("a/") == {"small": b"small", "empty": b""}
    assert read_bytes(location("s3://footage/a/small")) == b"small"
    download(location("s3://footage/a/empty"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_a_large_file_goes_and_comes_in_parts(s3: Endpoint, large: Path, tmp_path: Path) -> None:
    path = location("s3://footage/large")
    upload(large, path)
    assert s3.count(r"PUT .*partNumber=") == 3
    assert s3.objects()["large"] == large.read_bytes()
    s3.lines.clear()
    download(path, tmp_path / "copy")
    assert s3.count("^GET /footage/large") >= 3
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()


def test_a_large_upload_that_breaks_off_shows_nothing_and_leaves_no_parts(s3: Endpoint, large: Path) -> None:
    path = location("s3://footage/large")
    write_bytes(path, b"before")
    with s3.fault("partNumber=3", faults.hang_up), pytest.raises(OSError, match="out of reach or busy"):  # noqa: SIM117
        with attempts(StorageConfig(tries=1)):
            upload(large, path)
    assert s3.objects() == {"large": b"before"}
    assert s3.unfinished_uploads() == []


def test_a_throttled_storage_is_tried_again_with_growing_waits_until_it_gives_way(
    s3: Endpoint, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = location("s3://footage/a")
    with s3.fault("^PUT", SLOW_DOWN, times=3 * _PER_TRY), attempts(StorageConfig(tries=4)) as tried:
        write_bytes(path, b"x")
    assert s3.objects() == {"a": b"x"}
    assert tried.retries == 3
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, (1, 2, 4), strict=True))
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(logged) == 3
    assert "s3://footage/a: SlowDown" in logged[0]
    assert "try 2 of 4" in logged[0]


def test_tries_are_spent_in_the_end(s3: Endpoint) -> None:
    with s3.fault("^PUT", SLOW_DOWN), pytest.raises(OSError, match="SlowDown") as ended:  # noqa: SIM117
        with attempts(StorageConfig(tries=3)) as tried:
            write_bytes(location("s3://footage/a"), b"x")
    assert tried.retries == 2
    assert s3.count("^PUT") == 3 * _PER_TRY
    assert ended.value.strerror is not None


def test_a_download_whose_connection_is_dropped_in_mid_body_is_tried_again(s3: Endpoint, tmp_path: Path) -> None:
    path, data = location("s3://footage/a"), bytes(range(256)) * 4096
    write_bytes(path, data)
    with s3.fault("^GET /footage/a", faults.break_off(0.5), times=_PER_TRY), attempts(StorageConfig(tries=2)) as tried:
        download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert tried.retries == 1


def test_a_missing_object_and_a_missing_bucket_are_no_matter_of_patience(s3: Endpoint, tmp_path: Path) -> None:
    for url in ("s3://footage/absent", "s3://no-such-bucket/a"):
        with attempts(StorageConfig()) as tried, pytest.raises(FileNotFoundError):
            download(location(url), tmp_path / "copy")
        assert tried.retries == 0


def test_refused_credentials_are_not_tried_again_and_the_error_says_where_they_come_from_and_not_which(
    s3: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG0")
    with s3.fault(".", faults.needs_key), attempts(StorageConfig()) as tried:  # noqa: SIM117
        with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID") as refused:
            read_bytes(location("s3://footage/a"))
    assert tried.retries == 0
    assert "403" in str(refused.value)
    assert SECRET_KEY not in str(refused.value)
    assert "WRONG" not in str(refused.value)


def test_absent_credentials_are_named(s3: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PermissionError, match=r"[Cc]redentials.*AWS_PROFILE"):
        read_bytes(location("s3://footage/a"))


def test_a_file_larger_than_allowed_is_not_fetched(s3: Endpoint, tmp_path: Path) -> None:
    path = location("s3://footage/a")
    write_bytes(path, b"x" * 1000)
    download(path, tmp_path / "copy", max_bytes=1000)
    with pytest.raises(TooLarge):
        download(path, tmp_path / "refused", max_bytes=999)
    assert not (tmp_path / "refused").exists()
