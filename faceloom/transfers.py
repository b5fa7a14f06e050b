"""Moving bytes to and from remote storage: whole or not at all, and again when it is the storage that failed.

A library may retry single requests below, for a few seconds and unseen (s3fs five times); a transfer that still fails is
tried anew from its beginning here, the same way for every storage, as often as :class:`StorageConfig` says.
"""

import atexit
import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging import getLogger
from pathlib import Path
from typing import Any, TypeVar

from fsspec.callbacks import Callback  # type: ignore[import-untyped]
from pydantic import Field

from faceloom.config import Section
from faceloom.scratch import Scratch
from faceloom.storage_errors import is_of_storage, is_refused, is_transient, reason, remedy

logger = getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0


class StorageConfig(Section):
    """Remote storage: manifest, sources and output behind URLs. Credentials come from the environment."""

    tries: int = Field(8, ge=1)
    """How often a transfer is tried when the storage is busy or the connection breaks; the waits grow from 1 to 60 s."""
    scratch: str | None = None
    """Folder on a disk of the node for copies of remote files; by default the system's (``TMPDIR``)."""
    source_mib: int = Field(4096, ge=1)
    """The largest remote source that is copied there; each face worker has one at a time."""


class Attempts:
    """Tries transfers as often as the configuration says; ``retries`` counts those that had to be repeated."""

    def __init__(self, config: StorageConfig) -> None:
        self.config = config
        self.retries = 0
        self._scratch: Scratch | None = None

    def run(self, what: str, transfer: Callable[[], T]) -> T:
        """The result of ``transfer``, which is done again from its beginning while :func:`is_transient` errors end it.

        Raises the last error when tries are spent, and any other at once: what a storage library raises as an ``OSError``
        that says what to do, everything else as it is. ``what`` names the transfer in the log.
        """
        for attempt in range(1, self.config.tries + 1):
            try:
                return transfer()
            except Exception as error:
                if attempt == self.config.tries or not is_transient(error):
                    raise _as_os_error(error) from error
                self.retries += 1
                wait_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1)  # noqa: S311
                logger.warning(
                    "%s: %s; try %d of %d follows in %.1f s",
                    what,
                    reason(error),
                    attempt + 1,
                    self.config.tries,
                    wait_s,
                )
                time.sleep(wait_s)
        raise AssertionError

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Transfers in the block are tried so."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @property
    def scratch(self) -> Scratch:
        """Made when it is first asked for, and removed with :meth:`close`."""
        if self._scratch is None:
            self._scratch = Scratch(self.config.scratch)
        return self._scratch

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


_DEFAULT = Attempts(StorageConfig())
atexit.register(_DEFAULT.close)
_current: ContextVar[Attempts] = ContextVar("attempts", default=_DEFAULT)


def current() -> Attempts:
    """How transfers are tried here: as the innermost :func:`attempts` says, else by the defaults."""
    return _current.get()


@contextmanager
def attempts(config: StorageConfig) -> Iterator[Attempts]:
    """Transfers in the block are tried as ``config`` says, and what they leave in scratch is gone after it."""
    made = Attempts(config)
    try:
        with made.in_use():
            yield made
    finally:
        made.close()


class TooLarge(Exception):
    """A file has more bytes than it may."""


def read_bytes(path: Path, start: int | None = None, stop: int | None = None) -> bytes:
    """The bytes of a remote file, or those from ``start`` to ``stop``, as far as it has them."""
    system, key = _split(path)
    return bytes(current().run(f"reading {path}", lambda: system.cat_file(key, start=start, end=stop)))


def write_bytes(path: Path, data: bytes) -> None:
    """Create or replace a remote file: by one request or, from 100 MiB on S3, by parts that show only when all are there."""
    system, key = _split(path)
    current().run(f"writing {path}", lambda: system.pipe_file(key, data))


def upload(local: Path, path: Path) -> None:
    """Create or replace a remote file as :func:`write_bytes` does, with the bytes of a local one."""
    system, key = _split(path)
    current().run(f"writing {path}", lambda: system.put_file(str(local), key))


def download(path: Path, local: Path, max_bytes: int | None = None) -> None:
    """Copy a remote file to ``local``, which is complete when this returns.

    Raises :class:`TooLarge` as soon as the file is known to have more than ``max_bytes``, and what the storage raises.
    """
    system, key = _split(path)

    def transfer() -> None:
        watch = _Watch(max_bytes)
        system.get_file(key, str(local), callback=watch)
        if watch.size is not None and local.stat().st_size != watch.size:
            raise ConnectionError(f"{path} broke off after {local.stat().st_size} of {watch.size} bytes")

    current().run(f"reading {path}", transfer)


class _Watch(Callback):  # type: ignore[misc]
    """Ends a download that is too large: before it begins, where the storage says how large, else on the way."""

    def __init__(self, max_bytes: int | None) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        self._check(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._check(self.value)

    def _check(self, nbytes: int) -> None:
        if self._max_bytes is not None and nbytes > self._max_bytes:
            raise TooLarge


def _as_os_error(error: Exception) -> Exception:
    if is_refused(error):
        return PermissionError(errno.EACCES, f"{reason(error)}; {remedy(error)}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if is_of_storage(error) or is_transient(error):
        return OSError(errno.EREMOTEIO, f"{reason(error)}; {remedy(error)}")
    return error


def _split(path: Path) -> tuple[Any, str]:
    remote: Any = path
    return remote.fs, remote.path
