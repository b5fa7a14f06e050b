"""Local files for a while: a folder of this process's own, which is removed with it, be it by the next process.

``<root>/faceloom-<user id>/`` holds one folder a process and beside it a file that the process keeps locked (``flock``, which
the kernel drops with the process). Who makes a new folder removes those whose lock nobody holds.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from faceloom.errors import UserError

_LOCK = ".lock"


class Scratch:
    """A new folder below ``root``, by default the system's folder for temporary files (``TMPDIR``).

    Raises :class:`UserError` naming ``root`` when none can be made there.
    """

    def __init__(self, root: str | None) -> None:
        base = Path(root or tempfile.gettempdir()).absolute()
        self._of_user = base / f"faceloom-{os.getuid()}"
        try:
            self._of_user.mkdir(mode=0o700, exist_ok=True)
            if self._of_user.stat().st_uid != os.getuid():
                raise PermissionError(f"{self._of_user} belongs to another user")
            self._remove_leftovers()
            self._lock, self.folder = self._make()
        except OSError as error:
            raise UserError(
                f"no scratch folder can be made in {base} ({error.strerror or error}); "
                "name another with storage.scratch or TMPDIR"
            ) from None

    def file(self, suffix: str = "") -> Path:
        """A name in the folder that is not taken yet; removing the file is the caller's."""
        return self.folder / f"{secrets.token_hex(8)}{suffix}"

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        _lock_of(self.folder).unlink(missing_ok=True)
        os.close(self._lock)

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> tuple[int, Path]:
        while True:
            folder = self._of_user / f"{os.getpid()}-{secrets.token_hex(8)}"
            lock = _lock_of(folder)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if _locked(descriptor) and lock.exists():  # else another process has just taken it for a leftover
                folder.mkdir(mode=0o700)
                return descriptor, folder
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        for lock in self._of_user.glob(f"*{_LOCK}"):
            try:
                descriptor = os.open(lock, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                if _locked(descriptor):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
