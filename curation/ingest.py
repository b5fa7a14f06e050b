"""From a folder of videos to the clips of a manifest: one a file, whatever its state.

Nothing that calls itself a video is left out here. What turns out to be a directory, empty or broken fails later under
its own name, in the ledger, where it can be counted.
"""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from curation.sources import Clip
from faceloom.errors import UserError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on


@dataclass(frozen=True)
class Listing:
    """The clips of a folder in order of their source keys, and what was passed over."""

    clips: tuple[Clip, ...]
    ignored: Mapping[str, int]
    """Files that are no videos by their name: how many of each suffix, lower case, "" for none."""
    left_out: Mapping[str, str]
    """Videos that the manifest cannot hold and folders that could not be listed, relative to the root: the reason of each."""


def folder_clips(root: Path, dataset: str | None = None, licence: str = "unknown") -> Listing:
    """Every video below ``root``, one clip each; ``dataset`` is the folder's name unless given.

    The source key is the path relative to ``root`` with ``/`` and in Unicode's composed form (NFC), so that a copy made by
    way of macOS keeps its keys; of names that this makes equal, the first is listed. Links are followed; a folder that
    several paths lead to is listed once, and under its own path if that lies below ``root``. Files with the bytes of an
    earlier one name it in ``duplicate_of``. Raises :class:`UserError` when ``root`` is no folder or holds no video.
    """
    root = Path(os.path.normpath(root.absolute()))
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {state}; give --root the folder that holds the videos")
    videos, ignored, left_out = _walk(root)
    by_key: dict[str, Path] = {}
    for key, path in sorted((unicodedata.normalize("NFC", path.relative_to(root).as_posix()), path) for path in videos):
        if not _is_utf8(path):
            left_out[_shown(path, root)] = "its path is not UTF-8; rename what is escaped here"
        elif key in by_key:
            left_out[_shown(path, root)] = "another file has the same name in another Unicode form; rename one"
        else:
            by_key[key] = path
    if not by_key:
        seen = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(ignored.items()))
        reasons = "".join(f"; {name}: {reason}" for name, reason in sorted(left_out.items())[:3])
        raise UserError(
            f"no video below {root} (found: {seen or 'no files'}{reasons}); "
            f"a video's name ends in {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    duplicates = _duplicates(by_key.items())
    clips = [
        Clip(dataset or root.name, key, str(path), licence=licence, duplicate_of=duplicates.get(key))
        for key, path in by_key.items()
    ]
    return Listing(tuple(clips), dict(sorted(ignored.items())), dict(sorted(left_out.items())))


def _walk(root: Path) -> tuple[list[Path], Counter[str], dict[str, str]]:
    """Videos, other files by suffix, and why a folder is left out. Linked folders come after all real ones."""
    videos: list[Path] = []
    ignored: Counter[str] = Counter()
    left_out: dict[str, str] = {}
    walked: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    videos.append(path)
                elif path.is_dir():
                    (links if path.is_symlink() else folders).append(path)
                else:
                    ignored[path.suffix.lower()] += 1
        except OSError as error:
            left_out[_shown(folder, root)] = f"cannot be listed, its videos are missing ({error.strerror})"
    return videos, ignored, left_out


def _duplicates(by_key: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """For each file with the bytes of an earlier one: its key and the first one's. Hashes only files of equal size."""
    by_size: defaultdict[int, list[tuple[str, Path]]] = defaultdict(list)
    for key, path in by_key:
        try:
            status = path.stat()
        except OSError:
            continue
        # Empty files have no content to share; each fails by itself.
        if S_ISREG(status.st_mode) and status.st_size:
            by_size[status.st_size].append((key, path))
    duplicates: dict[str, str] = {}
    for files in by_size.values():
        if len(files) == 1:
            continue
        first: dict[str, str] = {}
        for key, path in files:
            try:
                original = first.setdefault(_sha256(path), key)
            except OSError:
                continue
            if original != key:
                duplicates[key] = original
    return duplicates


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_utf8(path: Path) -> bool:
    """Whether the manifest can hold the path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path, root: Path) -> str:
    """The path relative to ``root``, with escapes for what is not UTF-8, so that it can be printed."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
