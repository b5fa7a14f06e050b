"""Panda-70M: a CSV file with one row a source video, and the clips of it that were downloaded.

Files by https://github.com/snap-research/Panda-70M, ``dataset_dataloading``, whose video2dataset numbers the rows:
``00001/0000102_00003.mp4`` is clip 3 of row 102. Cells are Python literals; they are parsed here, never evaluated. The rows
and the shards are read in order and once, so that neither have to fit into memory.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from curation.adapters.annotations import csv_rows, list_literal
from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import PANDA70M
from curation.adapters.tree import VIDEO_SUFFIXES, cannot_be_listed, folder_of, shown
from curation.sources import Clip, label_text
from faceloom.apart import apart
from faceloom.errors import UserError

_SHARD = re.compile(r"\d{5}", re.ASCII)
_VIDEO = re.compile(r"((\d{5})\d{1,5})_(\d{5})\.mp4", re.ASCII)
_NEEDED = ("videoID", "url", "timestamp")
_LOOK_S = 60.0
_LOW_PX = 480

_NO_SUCH_ROW = "the CSV file has no row of its number"
_MISPLACED = "does not lie at SSSSS/SSSSSVV_CCCCC.mp4"
_BAD_ROW = "its row of the CSV file cannot be used"


@dataclass(frozen=True)
class _Video:
    """The clips of one row that are on disk, by their numbers."""

    row: int
    shard: Path
    clips: Mapping[int, str]


@dataclass(frozen=True)
class _Row:
    """One row of the CSV file, its lists parsed; one entry a clip in each."""

    video_id: str
    spans: list[object]
    captions: list[object] | None
    scores: list[object] | None
    desirable: list[object] | None
    shots: list[object] | None


def entries(root: Path) -> Iterator[Entry]:
    """One clip a downloaded file, keyed by its name, if the CSV file calls it desirable and one shot.

    An older CSV file says neither: then all are listed, and whether they are one shot is unknown. Raises :class:`UserError`
    when ``root`` has no CSV file or several, or when it is not the one that the clips were downloaded by.
    """
    root = folder_of(root)
    table, shards = yield from _top(root)
    disk = _Disk(_videos(root, shards))
    first: Path | None = None
    checked: Path | None = None
    chosen = True
    for number, row in enumerate(csv_rows(table, table.name, _NEEDED)):
        yield from disk.before(number)
        video = disk.take(number)
        if isinstance(row, LeftOut):
            yield row
            yield from _unusable(video)
            continue
        line, cells = row
        chosen = chosen and not {"desirable_filtering", "shot_boundary_detection"} - cells.keys()
        where = f"{table.name}:{line} {cells['videoID'][:40]}"
        if video is None:
            yield LeftOut(where, "a row without a file on disk")
            continue
        if checked != video.shard:
            _check_download(video, number, cells["url"], table)
            checked = video.shard
            first = first or video.shard / min(video.clips.values())
        yield from _clips(video, cells, where)
    yield from disk.before(None)
    if not chosen:
        yield Notice(
            f"{table.name} lacks desirable_filtering or shot_boundary_detection: clips are listed without that choice; "
            "the newer CSV files have both"
        )
    if first is not None and (height := _height_px(first)) and height < _LOW_PX:
        yield Notice(
            f"{first.name} is {height} px high (video2dataset's default is 360): few faces will be large enough; "
            "download again with download_size: 720 or more in panda_70M.yaml"
        )


class _Disk:
    """What is on disk, beside the rows of the CSV file: both ascend."""

    def __init__(self, entries: Iterator["_Video | Entry"]) -> None:
        self._entries = entries
        self._next: _Video | None = None

    def before(self, row: int | None) -> Iterator[Entry]:
        """Entries up to the videos of ``row``; None for all. Videos of earlier rows were not taken: they have none."""
        while self._next is None or row is None or self._next.row < row:
            if self._next is not None:
                yield from (LeftOut(f"{self._next.shard.name}/{n}", _NO_SUCH_ROW) for n in self._next.clips.values())
                self._next = None
            entry = next(self._entries, None)
            if entry is None:
                return
            if isinstance(entry, _Video):
                self._next = entry
            else:
                yield entry

    def take(self, row: int) -> "_Video | None":
        """The video of ``row``, which is then done with."""
        if self._next is None or self._next.row != row:
            return None
        video, self._next = self._next, None
        return video


def _unusable(video: _Video | None) -> Iterator[LeftOut]:
    if video is not None:
        yield from (LeftOut(f"{video.shard.name}/{name}", _BAD_ROW) for name in video.clips.values())


def _clips(video: _Video, cells: Mapping[str, str], where: str) -> Iterator[Entry]:
    """Each clip of a row and each of its files is a clip or left out."""
    try:
        row = _parsed(cells)
    except ValueError:
        yield LeftOut(where, "a row whose lists cannot be read, or have different lengths")
        yield from _unusable(video)
        return
    for clip in range(len(row.spans)):
        if clip not in video.clips:
            yield LeftOut(f"{where} clip {clip}", "a clip without a file on disk")
    for clip, name in sorted(video.clips.items()):
        file = f"{video.shard.name}/{name}"
        if clip >= len(row.spans):
            yield LeftOut(file, "its row of the CSV file has fewer clips")
            continue
        desirable = row.desirable[clip] if row.desirable else "desirable"
        shots = row.shots[clip] if row.shots else None
        if desirable != "desirable":
            known = isinstance(desirable, str) and re.fullmatch(r"\d_\w{1,40}", desirable, re.ASCII)
            yield LeftOut(file, f"desirable_filtering: {desirable if known else 'a value that is none of the dataset'}")
        elif shots is not None and not (isinstance(shots, list) and len(shots) == 1):
            yield LeftOut(file, "shot_boundary_detection: not one shot")
        else:
            yield Clip(
                PANDA70M.name,
                name.removesuffix(".mp4"),
                str(video.shard / name),
                licence=PANDA70M.licence,
                single_shot=True if shots is not None else None,
                labels=label_text(
                    youtube=row.video_id,
                    span=row.spans[clip],
                    caption=row.captions[clip] if row.captions else None,
                    matching_score=row.scores[clip] if row.scores else None,
                ),
            )


def _parsed(cells: Mapping[str, str]) -> _Row:
    """Raises ``ValueError`` unless all lists are lists, of one length, of what a label can hold."""
    spans = list_literal(cells["timestamp"])

    def other(column: str) -> list[object] | None:
        if column not in cells:
            return None
        values = list_literal(cells[column])
        if len(values) != len(spans):
            raise ValueError(column)
        return values

    row = _Row(
        video_id=cells["videoID"],
        spans=spans,
        captions=other("caption"),
        scores=other("matching_score"),
        desirable=other("desirable_filtering"),
        shots=other("shot_boundary_detection"),
    )
    for span in spans:
        if not (isinstance(span, list) and len(span) == 2 and all(_is_text(time) for time in span)):
            raise ValueError("timestamp")
    if not all(_is_text(caption) for caption in row.captions or ()):
        raise ValueError("caption")
    if not all(type(score) in (int, float) for score in row.scores or ()):
        raise ValueError("matching_score")
    return row


def _is_text(value: object) -> bool:
    """A literal can spell half a character, which no file holds."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _top(root: Path) -> Generator[Entry, None, tuple[Path, list[Path]]]:
    """The CSV file and the folders of shards, in order. Whatever else lies beside them is named or counted."""
    tables: list[Path] = []
    shards: list[Path] = []
    ignored: Counter[str] = Counter()
    try:
        with os.scandir(root) as listed:
            found = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot list {root}: {error.strerror}; mend its rights") from None
    for entry in found:
        path = root / entry.name
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield LeftOut(shown(path, root), _MISPLACED)
        elif entry.is_dir():
            if _SHARD.fullmatch(entry.name):
                shards.append(path)
            else:
                yield LeftOut(f"{shown(path, root)}/", "a folder that is no shard: five digits")
        elif path.suffix.lower() == ".csv":
            tables.append(path)
        else:
            ignored[path.suffix.lower()] += 1
    yield from (Ignored(suffix, count) for suffix, count in sorted(ignored.items()))
    if len(tables) != 1:
        names = ", ".join(shown(path, root) for path in tables[:5]) or "none"
        raise UserError(
            f"{root} has to hold one CSV file, the one that its clips were downloaded by (found: {names}); "
            f"expected: {PANDA70M.layout}"
        )
    return tables[0], shards


def _videos(root: Path, shards: list[Path]) -> Iterator[_Video | Entry]:
    """What the shards hold, one shard in memory, rows ascending."""
    for shard in shards:
        clips: list[tuple[int, int, str]] = []
        ignored: Counter[str] = Counter()
        try:
            names = sorted(os.listdir(shard))  # noqa: PTH208 - names alone: an object each would cost more than the rest
        except OSError as error:
            yield cannot_be_listed(shard, root, error)
            continue
        for name in names:
            match = _VIDEO.fullmatch(name)
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if match and match[2] == shard.name:
                clips.append((int(match[1]), int(match[3]), name))
            elif suffix in VIDEO_SUFFIXES:
                yield LeftOut(shown(shard / name, root), _MISPLACED)
            else:
                ignored[suffix] += 1
        yield from (Ignored(suffix, count) for suffix, count in sorted(ignored.items()))
        for row, group in groupby(sorted(clips), key=lambda clip: clip[0]):
            yield _Video(row, shard, {clip: name for _, clip, name in group})


def _check_download(video: _Video, number: int, url: str, table: Path) -> None:
    """Compare the row's address with the one that a clip's own .json has: rows and files are matched by number alone."""
    sidecar = (video.shard / min(video.clips.values())).with_suffix(".json")
    try:
        downloaded = json.loads(sidecar.read_bytes())["url"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if downloaded != url:
        raise UserError(
            f"{sidecar} was downloaded from {str(downloaded)[:80]!a}, row {number} of {table.name} says {url[:80]!a}: "
            "the clips were downloaded by another CSV file; put that one into its place"
        )


def _height_px(path: Path) -> int | None:
    """None if the file is no video; curation will say so. Read in a process of its own, as all footage is."""
    return next(apart(_read_height_px, [str(path)], workers=1, deadline_s=_LOOK_S))


def _read_height_px(path: str) -> int | None:
    import av  # slow to import, for one file

    from curation.containers import open_footage

    try:
        with open_footage(path) as container:
            return int(container.streams.video[0].height)
    except (av.FFmpegError, OSError, IndexError, ValueError):
        return None
