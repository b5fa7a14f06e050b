"""Files that are either whole or absent, also after a crash or a power cut.

A file is written under a temporary name in its own folder (a rename is atomic only within a file system), flushed to
the disk, renamed, and the folder is flushed too: without that last step a rename can be lost after it was reported.
A remote file is uploaded: an object store shows an object when it has all of it, and not before.
"""

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import BinaryIO

from faceloom import transfers
from faceloom.errors import UserError
from faceloom.location import is_remote

_SUFFIX = ".faceloom-tmp"
_CONNECTIONS = 16
_AHEAD = 64


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Create or replace ``path`` with ``data``, or with what ``data(stream)`` writes.

    The folder must exist. When the callback raises, or the process dies, ``path`` is what it was before; an exception
    also removes the temporary file, a death leaves it for :func:`remove_temporaries`. To a remote path, what the callback
    writes goes through a local file, since a remote one would be committed by the exception that ends its writing.
    """
    if is_remote(path):
        _write_remote(path, data)
        return
    with replacement(path) as stream:
        if callable(data):
            data(stream)
        else:
            stream.write(data)


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of the local ``path`` when the block ends without an exception.

    For writers that need a name, the stream has it: ``stream.name`` may be opened, and written, by another.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; of a remote one with patience, see :mod:`faceloom.transfers`."""
    return transfers.read_bytes(path) if is_remote(path) else path.read_bytes()


def read_range(path: Path, start: int, nbytes: int) -> bytes:
    """``nbytes`` of a file from ``start`` on, or as many as there are; whoever states the numbers need not be trusted."""
    start, nbytes = max(0, start), max(0, nbytes)
    if is_remote(path):
        return transfers.read_bytes(path, start, start + nbytes) if nbytes else b""
    with path.open("rb") as stream:
        # A read sets aside the memory that it is asked for.
        size = stream.seek(0, 2)
        start = stream.seek(min(start, size))
        return stream.read(min(nbytes, size - start))


def parquet_source(path: Path) -> Path | BinaryIO:
    """What pyarrow reads a small Parquet file from: a remote one is fetched whole, in one request."""
    return io.BytesIO(transfers.read_bytes(path)) if is_remote(path) else path


def parquet_sources(paths: Sequence[Path]) -> Iterator[tuple[Path, Path | BinaryIO]]:
    """Each path with its :func:`parquet_source`, in order; of remote ones, many are under way at a time."""
    remote = [path for path in paths if is_remote(path)]
    if not remote:
        yield from ((path, path) for path in paths)
        return
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for start in range(0, len(paths), _AHEAD):
            some = paths[start : start + _AHEAD]
            read = [pool.submit(copy_context().run, parquet_source, path) for path in some]
            yield from zip(some, (each.result() for each in read), strict=True)


def file_names(folder: Path) -> set[str]:
    """The names of what is in a folder, by one listing; none of an absent one."""
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):  # a remote folder is there when something is in it
        return set()


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents durably; an existing folder is left as it is. Remote folders need not be made."""
    if is_remote(folder) or folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def move_folder(folder: Path, target: Path) -> None:
    """Rename ``folder``, all whose files are flushed, to ``target`` in the same parent: absent, or an empty folder.

    Raises :class:`UserError` for remote folders, which cannot be renamed.
    """
    if is_remote(folder):
        raise UserError(
            f"{target} is remote, and a folder of many files appears there only bit by bit; name a local folder"
        )
    folder.replace(target)
    _sync_folder(target.parent)


def is_temporary(path: Path) -> bool:
    """Whether the name is one that :func:`write_atomic` gives to an unfinished file."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_temporaries(folder: Path) -> list[Path]:
    """Delete what dead writers left directly in ``folder`` and return it. Nobody may be writing to the folder.

    Remote writes leave none; what S3 keeps of an upload that was broken off, a rule of the bucket removes.
    """
    if is_remote(folder):
        return []
    leftovers = sorted(path for path in folder.iterdir() if is_temporary(path)) if folder.is_dir() else []
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def _write_remote(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    if not callable(data):
        transfers.write_bytes(path, data)
        return
    local = transfers.current().scratch.file(path.suffix)
    try:
        with local.open("xb") as stream:
            data(stream)
        transfers.upload(local, path)
    finally:
        local.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; the rename itself has happened by now.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
