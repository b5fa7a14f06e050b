"""One walk over a dataset's folder: its videos by key, the annotation files an adapter asks for, and what is neither."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.adapters.entries import Ignored, LeftOut
from faceloom.errors import UserError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on


@dataclass(frozen=True)
class Tree:
    """A folder's videos and annotation files, each by its key and in the order of the keys, and what was passed over.

    A key is the path relative to the root with ``/`` and in Unicode's composed form (NFC), so that a copy made by way of
    macOS keeps its keys.
    """

    root: Path
    videos: Mapping[str, Path]
    annotations: Mapping[str, Path]
    passed_over: tuple[LeftOut | Ignored, ...]


def folder_of(root: Path) -> Path:
    """``root`` as an absolute path. Raises :class:`UserError` when it is no folder."""
    root = Path(os.path.normpath(root.absolute()))
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
    ``root``. Of files whose keys are equal, the first is listed. Raises :class:`UserError` when ``root`` is no folder.
    """
    root = folder_of(root)
    found: list[Path] = []
    ignored: Counter[str] = Counter()
    left_out: list[LeftOut] = []
    for path in _files(root, skip, left_out):
        if path.suffix.lower() in VIDEO_SUFFIXES or annotation(path.name):
            found.append(path)
        else:
            ignored[path.suffix.lower()] += 1
    by_key: dict[str, Path] = {}
    for key, path in sorted((unicodedata.normalize("NFC", path.relative_to(root).as_posix()), path) for path in found):
        if not _is_utf8(path):
            left_out.append(LeftOut(shown(path, root), "its path is not UTF-8; rename what is escaped here"))
        elif key in by_key:
            reason = "another file has the same name in another Unicode form; rename one"
            left_out.append(LeftOut(shown(path, root), reason))
        else:
            by_key[key] = path
    return Tree(
        root=root,
        videos={key: path for key, path in by_key.items() if path.suffix.lower() in VIDEO_SUFFIXES},
        annotations={key: path for key, path in by_key.items() if path.suffix.lower() not in VIDEO_SUFFIXES},
        passed_over=(*left_out, *(Ignored(suffix, count) for suffix, count in sorted(ignored.items()))),
    )


def shown(path: Path, root: Path) -> str:
    """The path relative to ``root``, with escapes for what is not UTF-8, so that it can be printed."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def cannot_be_listed(folder: Path, root: Path, error: OSError) -> LeftOut:
    """The entry of a folder that the file system does not show."""
    return LeftOut(shown(folder, root), f"cannot be listed, its videos are missing ({error.strerror})")


def _files(root: Path, skip: Callable[[str], bool], left_out: list[LeftOut]) -> Iterator[Path]:
    """Everything below ``root`` but folders; what has a video's name is taken for one. Linked folders come last."""
    walked: set[tuple[int, int]] = set()
    folders, links = [root], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
            for entry in entries:
                path = folder / entry.name
                if path.suffix.lower() in VIDEO_SUFFIXES or not entry.is_dir():
                    yield path
                elif not skip(entry.name):
                    (links if entry.is_symlink() else folders).append(path)
        except OSError as error:
            left_out.append(cannot_be_listed(folder, root, error))


def _is_utf8(path: Path) -> bool:
    """Whether the manifest can hold the path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
