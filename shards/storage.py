"""Files that are either whole or absent, also after a crash or a power cut.

A file is written under a temporary name in its own folder (a rename is atomic only within a file system), flushed to
the disk, renamed, and the folder is flushed too: without that last step a rename can be lost after it was reported.
"""

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".faceloom-tmp"


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Create or replace ``path`` with ``data``, or with what ``data(stream)`` writes.

    The folder must exist. When the callback raises, or the process dies, ``path`` is what it was before; an exception
    also removes the temporary file, a death leaves it for :func:`remove_temporaries`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            if callable(data):
                data(stream)
            else:
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents durably; an existing folder is left as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def move_folder(folder: Path, target: Path) -> None:
    """Rename ``folder``, all whose files are flushed, to ``target`` in the same parent: absent, or an empty folder."""
    folder.replace(target)
    _sync_folder(target.parent)


def is_temporary(path: Path) -> bool:
    """Whether the name is one that :func:`write_atomic` gives to an unfinished file."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_temporaries(folder: Path) -> list[Path]:
    """Delete what dead writers left directly in ``folder`` and return it. Nobody may be writing to the folder."""
    leftovers = sorted(path for path in folder.iterdir() if is_temporary(path)) if folder.is_dir() else []
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


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
