"""Which files have the bytes of an earlier one, without reading more of them than has to be read."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from faceloom.location import is_remote, location

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """Row ``row`` of a manifest: ``path`` has ``size`` bytes, as other rows' paths do; ``span`` is its ``(t0_s, t1_s)``."""

    row: int
    source_key: str
    path: str
    size: int
    span: tuple[float, float | None]


def file_size(path: str) -> int:
    """Bytes of a regular file; 0 for what has none, is no file, or cannot be asked: no content that could be shared.

    Remote files are not asked: to tell whether they are equal, all those of one size would have to be fetched.
    """
    where = location(path)
    if is_remote(where):
        return 0
    try:
        status = where.stat()
    except OSError:
        return 0
    return status.st_size if S_ISREG(status.st_mode) else 0


def duplicates(candidates: Iterable[Candidate]) -> dict[int, str]:
    """For each row with the bytes and the span of an earlier one: the earlier one's source key.

    Of files of equal size, the beginnings are compared first, and whole files only where these agree. A file that cannot be
    read is nobody's duplicate; it fails later under its own name.
    """
    by_size: defaultdict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_size[candidate.size].append(candidate)
    found: dict[int, str] = {}
    for equal_size in by_size.values():
        for equal_head in _groups(equal_size, _head):
            for equal in _groups(equal_head, _sha256):
                first: dict[tuple[float, float | None], str] = {}
                for candidate in equal:
                    original = first.setdefault(candidate.span, candidate.source_key)
                    if original != candidate.source_key:
                        found[candidate.row] = original
    return found


def _groups(candidates: list[Candidate], digest: Callable[[str], bytes]) -> list[list[Candidate]]:
    """``candidates`` by the digest of their files, in order, without groups of one file; each file is read once."""
    paths = dict.fromkeys(candidate.path for candidate in candidates)
    if len(paths) == 1:
        return []
    of_path: dict[str, bytes] = {}
    for path in paths:
        try:
            of_path[path] = digest(path)
        except OSError:
            continue
    groups: defaultdict[bytes, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.path in of_path:
            groups[of_path[candidate.path]].append(candidate)
    return list(groups.values())


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.sha256(file.read(_HEAD_BYTES)).digest()


def _sha256(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
