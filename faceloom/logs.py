"""What happens to clips and workers in a run, as lines that can be searched by clip id.

A line tells of a failure, a lost worker, another try, a worker that was replaced, a lease. What was kept or rejected is the
ledger's to tell. Lines for a person go to standard error; with ``FACELOOM_LOG=json`` in the environment they are JSON there,
one object a line, for whatever collects a cluster's logs. A run also has them as JSON in a file.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from faceloom.location import is_remote

_PACKAGES = ("faceloom", "curation", "landmarks", "shards", "training", "animation", "evaluation")
_FILE_BYTES, _OLD_FILES = 256 * 2**20, 3
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up() -> None:
    """Show this process's warnings on standard error; as JSON, with all that is worth a line, if the environment says so."""
    handler = _StandardError()
    if os.environ.get("FACELOOM_LOG") == "json":
        handler.setFormatter(JsonLines({}))
        handler.setLevel(logging.INFO)
    else:
        handler.setFormatter(_ForAPerson())
        handler.setLevel(logging.WARNING)
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        for old in [one for one in logger.handlers if isinstance(one, _StandardError)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def default_file(output: Path, name: str) -> Path | None:
    """Where a run's log is if nobody says otherwise: beside what its clips cost; None for a remote output."""
    return None if is_remote(output) else output / "telemetry" / f"{name}.jsonl"


@contextmanager
def log_file(path: Path | None, **context: Any) -> Iterator[None]:
    """Have every line also appended to ``path`` as JSON, with ``context``, host and process; None stands for no file.

    A file of 256 MiB is set aside as ``path.1``, at most three of which are kept. A file that cannot be written to is
    warned of once, and the run goes on without.
    """
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _File(path, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    except OSError as error:
        logging.getLogger(__name__).warning("no log in %s: %s", path, error.strerror)
        yield
        return
    handler.setFormatter(JsonLines({**context, "host": socket.gethostname(), "pid": os.getpid()}))
    handler.setLevel(logging.INFO)
    loggers = [logging.getLogger(package) for package in _PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _is_own(key: str) -> bool:
    return key not in _OF_EVERY_RECORD and not key.startswith("_")  # Ray gives every record one of its own


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, the context, and whatever the record has of its own.

    What a record is given as ``extra`` are its own fields; by custom ``clip_id``, ``clip`` (its source key), ``stage``,
    ``cause``, ``traceback``.
    """

    def __init__(self, context: dict[str, Any]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **{key: value for key, value in vars(record).items() if _is_own(key) and value is not None},
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


class _ForAPerson(logging.Formatter):
    """What happened, in a line; tracebacks are in the file."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


class _File(RotatingFileHandler):
    """A disk that is full ends a run where that matters, not where it is told about."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stderr`` is at the moment: a live display puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        pass
