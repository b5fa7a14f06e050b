"""The file of a clip on this machine: the file itself, or a copy of what lies behind a URL for as long as it is worked on."""

import re
from pathlib import Path, PurePosixPath

from curation.sources import Clip
from curation.stages import StageClock
from curation.video import NotAFileError, VideoError
from faceloom.engine import machine_is_at_fault
from faceloom.location import is_remote, location
from faceloom.storage_errors import scrubbed
from faceloom.transfers import Attempts, StorageConfig, TooLarge, download

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class FetchError(Exception):
    """The storage did not give a source. That need not be the source's fault."""


class TooLargeError(VideoError):
    """A remote file is larger than the room that it may take here."""


class LocalSource:
    """The file of ``clip``; :meth:`close` removes the copy, if there is one. What a killed worker left, the next removes."""

    def __init__(self, clip: Clip, config: StorageConfig) -> None:
        self.clip = clip
        self._attempts = Attempts(config)
        self._copy: Path | None = None
        self._error: Exception | None = None

    @property
    def retries(self) -> int:
        """How often fetching it was tried again."""
        return self._attempts.retries

    def path(self, clock: StageClock) -> str:
        """Where it lies on this machine. A remote file is fetched when this is first asked, which is charged to ``fetch``.

        Raises :class:`VideoError` for a file that is absent or too large, :class:`FetchError` when the storage refuses or
        tries are spent, and ``OSError`` when this machine has no room; asked again, the same at once.
        """
        if self._copy is not None:
            return str(self._copy)
        where = location(self.clip.path)
        if not is_remote(where):
            return self.clip.path
        with clock.stage("fetch"):
            if self._error is not None:
                raise self._error
            try:
                self._copy = self._fetch(where)
            except Exception as error:
                self._error = error
                raise
        return str(self._copy)

    def told(self, text: str) -> str:
        """``text`` with the file's own name in place of its copy's, and without secrets."""
        if self._copy is not None:
            text = text.replace(str(self._copy), self.clip.path)
        return scrubbed(text)

    def close(self) -> None:
        """Remove the copy."""
        self._attempts.close()

    def _fetch(self, where: Path) -> Path:
        suffix = PurePosixPath(where.name).suffix  # demuxers and error messages go by it
        copy = self._attempts.scratch.file(suffix if _SUFFIX.fullmatch(suffix) else "")
        limit_mib = self._attempts.config.source_mib
        try:
            with self._attempts.in_use():
                download(where, copy, limit_mib << 20)
        except FileNotFoundError:
            raise NotAFileError(f"{where} does not exist; restore the file or remove it from the manifest") from None
        except TooLarge:
            raise TooLargeError(
                f"{where} is larger than storage.source_mib, {limit_mib}; raise that or remove it from the manifest"
            ) from None
        except OSError as error:
            if machine_is_at_fault(error):
                raise
            raise FetchError(f"{where} cannot be fetched: {error.strerror or error}") from error
        return copy
