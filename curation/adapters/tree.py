"""One walk over a dataset's folder: its videos by key, the annotation files an adapter asks for, and what is neither."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from curation.adapters.entries import Ignored, LeftOut
from faceloom.errors import UserError
from faceloom.location import is_remote

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on


@dataclass(frozen=True)
class Tree:
    """The keys of a folder's videos and annotation files, each in order, and what was passed over.

    A key is the path relative to the root with ``/`` and in Unicode's composed form (NFC), so that a copy made by way of
    macOS keeps its keys. A tree may hold millions: there is one string for each.
    """

    root: Path
    videos: tuple[str, ...]
    annotations: tuple[str, ...]
    passed_over: tuple[LeftOut | Ignored, ...]
    renamed: Mapping[str, str]
    """The relative paths on disk of the keys that differ from them."""

    def path(self, key: str) -> Path:
        """Where the file lies."""
        return self.root / self.renamed.get(key, key)


def folder_of(root: Path) -> Path:
    """``root`` as an absolute path. Raises :class:`UserError` when it is no folder."""
    root = root if is_remote(root) else Path(os.path.normpath(root.absolute()))
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {state}; give --root the folder that holds the videos")
    return root


def read_tree(
    root: Path,
    annotation: Callable[[str], bool] = lambda _name: False,
    skip: Callable[[str], bool] = lambda _name: False,
) -> Tree:
    """Walk ``root``: no file is opened, and only folders and links are asked for more than their names.

    ``annotation`` tells by its name whether a file that is no video is wanted; ``skip`` tells which folders not to enter.
    Links are followed; a folder that several paths lead to is listed once, and under its own path if that lies below
    ``root``. Of files whose keys are equal, the first is listed. A URL is listed as a whole. Raises
    :class:`UserError` when ``root`` is no folder.
    """
    root = folder_of(root)
    found: list[str] = []
    ignored: Counter[str] = Counter()
    left_out: list[LeftOut] = []
    for path in _remote_files(root, skip) if is_remote(root) else _files(root, skip, left_out):
        name = path.rpartition("/")[2]
        if _is_video(name) or annotation(name):
            found.append(path)
        else:
            ignored[PurePosixPath(name).suffix.lower()] += 1
    renamed: dict[str, str] = {}
    videos: list[str] = []
    annotations: list[str] = []
    last = None
    found.sort(key=lambda path: (unicodedata.normalize("NFC", path), path))
    for path in found:
        key = unicodedata.normalize("NFC", path)
        if not _is_utf8(path):
            left_out.append(LeftOut(_escaped(path), "its path is not UTF-8; rename what is escaped here"))
        elif key == last:
            left_out.append(LeftOut(path, "another file has the same name in another Unicode form; rename one"))
        else:
            last = key
            (videos if _is_video(key) else annotations).append(key)
            if key != path:
                renamed[key] = path
    counts = (Ignored(suffix, count) for suffix, count in sorted(ignored.items()))
    return Tree(root, tuple(videos), tuple(annotations), (*left_out, *counts), renamed)


def shown(path: Path, root: Path) -> str:
    """The path relative to ``root``, with escapes for what is not UTF-8, so that it can be printed."""
    return _escaped(path.relative_to(root).as_posix())


def cannot_be_listed(folder: Path, root: Path, error: OSError) -> LeftOut:
    """The entry of a folder that the file system does not show."""
    return LeftOut(shown(folder, root), f"cannot be listed, its videos are missing ({error.strerror})")


def _files(root: Path, skip: Callable[[str], bool], left_out: list[LeftOut]) -> Iterator[str]:
    """Relative paths of all but folders; what has a video's name is taken for one. Linked folders come last."""
    walked: set[tuple[int, int]] = set()
    folders, links = [""], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if _is_video(entry.name) or not entry.is_dir():
                    yield path
                elif not skip(entry.name):
                    (links if entry.is_symlink() else folders).append(path)
        except OSError as error:
            left_out.append(cannot_be_listed(root / folder, root, error))


def _remote_files(root: Path, skip: Callable[[str], bool]) -> Iterator[str]:
    """Relative paths below a URL, by one listing."""
    remote: Any = root
    above = remote.path.rstrip("/") + "/"
    for key in remote.fs.find(remote.path):
        path = key.removeprefix(above)
        if not any(skip(folder) for folder in path.split("/")[:-1]):
            yield path


def _is_video(path: str) -> bool:
    """Whether it calls itself one."""
    return PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES


def _escaped(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_utf8(path: str) -> bool:
    """Whether the manifest can hold the path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
