"""A bounded folder of copies of remote files, shared by the processes of a node.

A copy is named for the sha256 it must have, so a file that has changed at its origin can never be taken for the one that is
wanted. The files themselves carry the locks (``flock``, which the kernel drops with the process): a download in progress is
``<sha256>.part`` under an exclusive lock, and whoever reads a copy holds a shared lock on it, which keeps it from being
evicted. There is nothing to clean up after a crash, and nothing in shared memory.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from faceloom.errors import UserError
from shards.index import DamageError
from shards.storage import make_folder

logger = logging.getLogger(__name__)

_CHUNK = 8 << 20
_ATTEMPTS = 2
_COPY = re.compile(r"[0-9a-f]{64}(\.part)?")
_PART = ".part"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class ShardCache:
    """Copies of remote files in ``folder`` (created), at most ``max_bytes`` of them as far as nobody is reading more.

    The least recently opened copies make room for new ones. One that any process has open is not evicted: if the files in use
    fill the cache, it grows beyond its limit and says so once. Several processes and threads may use a folder
    at a time; it should be on a local disk. Pickles to its settings.
    """

    def __init__(self, folder: Path | str, max_bytes: int) -> None:
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes
        self._warned = False
        make_folder(self.folder)

    def open(self, url: str, sha256: str) -> int:
        """A read-only descriptor of a copy of ``url``, fetched if it is not here; closing it is the caller's.

        While it is open the copy is not evicted. A download is tried twice. Raises :class:`DamageError` naming ``url`` if it
        cannot be fetched, or is not the file of that digest, and :class:`UserError` if the disk of the cache is full.
        """
        descriptor = self._open_copy(sha256)
        while descriptor is None:
            self._fetch(url, sha256)
            descriptor = self._open_copy(sha256)  # None again if another process has evicted it since
        return descriptor

    def discard(self, sha256: str) -> None:
        """Remove a copy that turned out damaged. Who has it open keeps reading the damaged one."""
        (self.folder / sha256).unlink(missing_ok=True)

    def _open_copy(self, sha256: str) -> int | None:
        try:
            descriptor = os.open(self.folder / sha256, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not os.fstat(descriptor).st_nlink:  # evicted between the opening and the lock
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return descriptor

    def _fetch(self, url: str, sha256: str) -> None:
        """Have ``url`` in the folder when this returns, by this call or by one that was quicker."""
        part = self.folder / (sha256 + _PART)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_file(descriptor, part):  # renamed or removed by who held the lock before
                return
            if (self.folder / sha256).exists():  # renamed just before this call made the file anew
                part.unlink()
                return
            try:
                self._download(url, sha256, descriptor)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            part.replace(self.folder / sha256)
        finally:
            os.close(descriptor)

    def _download(self, url: str, sha256: str, descriptor: int) -> None:
        """Fill the file of ``descriptor`` with ``url``, trying twice."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._copy(url, descriptor) == sha256:
                    return
                reason = "is not the file that the dataset lists (its sha256 differs)"
            except FileNotFoundError:
                raise DamageError(f"{url}: missing") from None
            except Exception as error:  # every fsspec backend has exceptions of its own
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise UserError(
                        f"the cache {self.folder} has no room for {url}: {error.strerror}; lower its limit, "
                        f"{self.max_bytes >> 20} MiB, or put it on a larger disk"
                    ) from error
                reason = str(error) or type(error).__name__
            logger.warning("%s: %s (attempt %d of %d)", url, reason, attempt, _ATTEMPTS)
        raise DamageError(f"{url}: {reason}")

    def _copy(self, url: str, descriptor: int) -> str:
        """Copy ``url`` into the file of ``descriptor``; returns the sha256 of what came."""
        filesystem, path = fsspec.core.url_to_fs(url)
        nbytes = filesystem.size(path)
        # The room is reserved before any is made, so that downloads at the same time count each other's.
        os.ftruncate(descriptor, nbytes)
        self._make_room()
        os.posix_fallocate(descriptor, 0, max(nbytes, 1))
        digest = hashlib.sha256()
        with filesystem.open(path, "rb", block_size=_CHUNK) as stream, open(descriptor, "wb", closefd=False) as copy:
            copy.seek(0)
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
            copy.truncate()
            copy.flush()
            os.fsync(descriptor)
        return digest.hexdigest()

    def _make_room(self) -> None:
        """Evict copies, the least recently opened first, until the rest fits or only files in use are left."""
        files = []
        for path in filter(_is_ours, self.folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # evicted or renamed by another process
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in files) - self.max_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            if _evict(path):
                excess -= size
        if excess > 0 and not self._warned:
            self._warned = True
            logger.warning(
                "%s: the files in use exceed the cache's limit of %d MiB by %d MiB; give it more",
                self.folder,
                self.max_bytes >> 20,
                -(-excess >> 20),
            )

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "max_bytes": self.max_bytes, "_warned": False}


def _is_ours(path: Path) -> bool:
    """Whether a file of the folder is the cache's own: whoever keeps other files there keeps them."""
    return _COPY.fullmatch(path.name) is not None


def _evict(path: Path) -> bool:
    """Remove ``path`` unless somebody holds a lock on it. A ``.part`` without one was left by a process that died."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_file(descriptor, path):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether ``descriptor`` is still the file called ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
