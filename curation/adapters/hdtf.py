"""HDTF: tables of time spans in YouTube videos, and whichever videos were made by them.

Tables: https://github.com/MRzzm/HDTF, ``HDTF_dataset``. ``annotion_time`` (sic) has a video and its spans in a line,
``Radio11.mp4 00:30-01:00 01:30-02:30``; clip ``Radio11_1`` is the second of them. ``crop_wh`` has x, width, y, height of the
authors' own crop; it is kept as a label, our crop is chosen anew. Fifteen clips lack theirs, and the download script
https://github.com/universome/HDTF counts without these: its ``RD_Radio6_000`` may be clip ``Radio6_1``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from curation.adapters.annotations import text_lines
from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import HDTF
from curation.adapters.tree import Tree, read_tree
from curation.sources import Clip, label_text
from faceloom.errors import UserError

_SUBSETS = ("RD", "WDA", "WRA")
_TIMES = "annotion_time"
_TABLES = (_TIMES, "video_url", "crop_wh", "crop_ratio", "resolution")
_TABLE_NAME = re.compile(rf"({'|'.join(_SUBSETS)})_({'|'.join(_TABLES)})\.txt")
_SPAN = re.compile(r"(\d{1,3}):([0-5]\d)-(\d{1,3}):([0-5]\d)", re.ASCII)
_CUT = re.compile(r"(.+)_(\d{1,3})", re.ASCII | re.DOTALL)

_NOT_ON_DISK = "a clip whose video is not on disk"
_RAW_INSTEAD = "cut from a video that is on disk whole; its seconds are listed from there, uncropped"


@dataclass
class _Subset:
    """The tables of one subset: rows by the name of their video or clip, without ``.mp4``."""

    name: str
    rows: dict[str, dict[str, tuple[str, list[str]]]] = field(default_factory=dict)
    """Table → name → where the row is, and its cells."""

    def cells(self, table: str, name: str) -> list[str] | None:
        """The cells of a row after its name."""
        row = self.rows.get(table, {}).get(name)
        return row[1] if row else None

    def clips(self, video: str) -> int:
        """How many clips the video has by ``annotion_time``."""
        return len(self.cells(_TIMES, video) or ())


@dataclass(frozen=True)
class _Role:
    """What a file is by its name: a whole video, or one cut to clip ``index``."""

    subset: str
    video: str
    index: int | None


def entries(root: Path) -> Iterator[Entry]:
    """One clip a span, from the whole video where that is on disk, else from the cut one.

    Keys: ``RD_Radio11`` with a span of it, or ``RD_Radio11_0`` for a file that was cut to it. A person is the name of a video
    without the digits behind it. Raises :class:`UserError` when there is no table of spans, or one of them twice.
    """
    tree = read_tree(root, lambda name: name.endswith(".txt"))
    yield from tree.passed_over
    subsets: dict[str, _Subset] = {}
    yield from _read_tables(tree, subsets)
    files: dict[_Role, str] = {}
    for key in tree.videos:
        role = _role(key, subsets)
        if isinstance(role, str):
            yield LeftOut(key, role)
        elif role in files:
            yield LeftOut(key, "another file is the same video or clip by its name")
        else:
            files[role] = key
    for subset in subsets.values():
        for video, (where, spans) in subset.rows[_TIMES].items():
            yield from _clips(tree, files, subset, video, where, spans)
        for video, (where, _) in subset.rows.get("video_url", {}).items():
            if video not in subset.rows[_TIMES]:
                yield LeftOut(f"{where} {video}", "a video without time spans")


def _clips(
    tree: Tree, files: Mapping[_Role, str], subset: _Subset, video: str, where: str, spans: list[str]
) -> Iterator[Entry]:
    """Each span of a video is a clip or left out, and so is each of its files."""
    whole = files.get(_Role(subset.name, video, None))
    from_whole: set[tuple[float, float]] = set()
    for index, text in enumerate(spans):
        cut = files.get(_Role(subset.name, video, index))
        span = _seconds(text)
        row = f"{where} {video}_{index} {text[:80]}"
        if span is None:
            yield LeftOut(row, "a time span that is not MM:SS-MM:SS, the end after the start")
        elif whole is None and cut is None:
            yield LeftOut(row, _NOT_ON_DISK)
        elif whole is None:
            pass
        elif span in from_whole:
            yield LeftOut(row, "a time span that its video has twice")
        else:
            from_whole.add(span)
            yield _clip(tree, subset, video, index, whole, span)
        if cut is None:
            continue
        if span is None:
            yield LeftOut(cut, "its time span cannot be read")
        elif whole is not None:
            yield LeftOut(cut, _RAW_INSTEAD)
        else:
            yield _clip(tree, subset, video, index, cut, None)
    if whole is not None and not from_whole:
        yield LeftOut(whole, "no time span of the video can be read")


def _clip(tree: Tree, subset: _Subset, video: str, index: int, key: str, span: tuple[float, float] | None) -> Clip:
    """Clip ``index`` of a video: ``span`` of the whole, or all of a file that was cut to it."""
    name = f"{video}_{index}"
    crop, ratio = subset.cells("crop_wh", name), subset.cells("crop_ratio", name)
    resolution = subset.cells("resolution", video)
    t0_s, t1_s = span or (0.0, None)
    return Clip(
        HDTF.name,
        f"{subset.name}_{name if span is None else video}",
        str(tree.path(key)),
        t0_s,
        t1_s,
        person_id=video.rstrip("0123456789") or None,
        licence=HDTF.licence,
        single_shot=False,
        labels=label_text(
            subset=subset.name,
            clip=name,
            youtube=_youtube_id(subset.cells("video_url", video)),
            crop_xwyh=[int(cell) for cell in crop] if crop else None,
            crop_ratio=float(ratio[0]) if ratio else None,
            resolution=int(resolution[0]) if resolution else None,
        ),
    )


def _role(key: str, subsets: Mapping[str, _Subset]) -> _Role | str:
    """What the file is, or why that cannot be told."""
    path = PurePosixPath(key)
    prefix, _, rest = path.stem.partition("_")
    if prefix in subsets:
        possible = {prefix: rest}
    else:
        parents = [part for part in path.parts[:-1] if part in subsets]
        possible = dict.fromkeys(parents[-1:] or subsets, path.stem)
    roles: list[_Role] = []
    reason = "its name is no video's in annotion_time"
    for name, stem in possible.items():
        subset = subsets[name]
        if subset.clips(stem):
            roles.append(_Role(name, stem, None))
        cut = _CUT.fullmatch(stem)
        if cut and subset.clips(cut[1]):
            index = int(cut[2])
            # universome's script: RD_Radio6_000, counted over the clips that have a crop.
            if name == prefix and len(cut[2]) == 3:
                cropped = [i for i in range(subset.clips(cut[1])) if subset.cells("crop_wh", f"{cut[1]}_{i}")]
                index = cropped[index] if index < len(cropped) else subset.clips(cut[1])
            if index < subset.clips(cut[1]):
                roles.append(_Role(name, cut[1], index))
            else:
                reason = "its video has fewer clips (of universome's numbers, fewer with a row in crop_wh)"
    if len(roles) == 1:
        return roles[0]
    return "its name fits several videos; put it below a folder named RD, WDA or WRA" if roles else reason


def _seconds(text: str) -> tuple[float, float] | None:
    """``01:30-02:30`` as (90, 150)."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    start, stop = (60.0 * int(match[i]) + int(match[i + 1]) for i in (1, 3))
    return (start, stop) if start < stop else None


def _youtube_id(url: list[str] | None) -> str | None:
    try:
        return parse_qs(urlsplit(url[0]).query)["v"][0] if url else None
    except (ValueError, KeyError):
        return None


def _read_tables(tree: Tree, subsets: dict[str, _Subset]) -> Iterator[Entry]:
    """Fill ``subsets`` with the subsets that have spans."""
    tables: dict[tuple[str, str], str] = {}
    for key in tree.annotations:
        match = _TABLE_NAME.fullmatch(PurePosixPath(key).name)
        if match is None:
            yield Ignored(".txt")
            continue
        table = match[1], match[2]
        if table in tables:
            raise UserError(f"{tree.root} holds {tables[table]} and {key}; keep the one that is right")
        tables[table] = key
    for name in _SUBSETS:
        missing = [kind for kind in _TABLES if (name, kind) not in tables]
        if missing:
            listed = ", ".join(f"{name}_{kind}.txt" for kind in missing)
            what = "its clips cannot be listed" if _TIMES in missing else "their labels are missing"
            yield Notice(f"not in {tree.root}: {listed}; {what}; get them from {HDTF.origin.partition(';')[0]}")
        if _TIMES in missing:
            continue
        subset = subsets[name] = _Subset(name)
        for kind in _TABLES:
            if kind not in missing:
                rows = subset.rows[kind] = {}
                yield from _read_table(tree, tables[name, kind], kind, rows)
    if not subsets:
        raise UserError(f"no table of time spans below {tree.root}; expected: {HDTF.layout}")


def _read_table(tree: Tree, key: str, table: str, rows: dict[str, tuple[str, list[str]]]) -> Iterator[LeftOut]:
    """Fill ``rows``; a row that cannot be used is left out."""
    for line in text_lines(tree.path(key), key):
        if isinstance(line, LeftOut):
            yield line
            continue
        where, (name, *cells) = f"{key}:{line[0]}", line[1].split()
        name = name.removesuffix(".mp4")
        if name in ("", ".", "..") or PurePosixPath(name).name != name:
            yield LeftOut(f"{where} {name[:80]}", "a row that begins with no plain file name")
        elif name in rows:
            yield LeftOut(f"{where} {name[:80]}", "a row whose video or clip its table has already")
        elif table == _TIMES and not cells:
            yield LeftOut(f"{where} {name[:80]}", "a video without time spans")
        elif not _is_sound(table, cells):
            yield LeftOut(f"{where} {name[:80]}", f"a row of {table} that is not as its table says")
        else:
            rows[name] = where, cells


def _is_sound(table: str, cells: list[str]) -> bool:
    match table:
        case "crop_wh":
            return len(cells) == 4 and all(cell.isascii() and cell.isdigit() and len(cell) < 6 for cell in cells)
        case "crop_ratio":
            return len(cells) == 1 and re.fullmatch(r"\d{1,3}(\.\d{1,9})?", cells[0], re.ASCII) is not None
        case "resolution":
            return len(cells) == 1 and re.fullmatch(r"\d{1,5}", cells[0], re.ASCII) is not None
        case "video_url":
            return len(cells) == 1
    return True
