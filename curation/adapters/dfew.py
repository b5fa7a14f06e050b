"""DFEW: clips from films with an emotion each, by votes of ten people.

Layout by the README that comes with the data. Two sorts of label files: ``Annotation/annotation.xlsx`` has all clips (votes
for seven emotions, and the label, 0 where none has enough of them); ``EmoLabel_DataSplit`` has those with one label, five
times split into train and test. The clips of 224 px are not used: nothing sharp can be cropped from them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from curation.adapters.annotations import csv_rows
from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import DFEW
from curation.adapters.tree import Tree, read_tree
from curation.sources import Clip, label_text
from faceloom.errors import UserError

_EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
_SMALL = "clip_224x224"
_WORKBOOK = "Annotation/annotation.xlsx"
_WORKBOOK_MAX_BYTES = 256 << 20
# The README says train(single_labeled), the archive train(single-labeled).
_SPLIT = re.compile(r"EmoLabel_DataSplit/(train|test)(?:\(single[-_]labeled\))?/set_([1-5])\.csv", re.ASCII)
_SETS = range(1, 6)

_BAD_ROW = "a row without the number of a clip and a label that DFEW has"
_NO_VIDEO = "a labelled clip without a video below Clip/original"


@dataclass
class _Known:
    """What the label files say of one clip; ``where`` is the first row that has it."""

    where: str
    labels: set[int] = field(default_factory=set)
    votes: list[int] | None = None
    test_sets: set[int] = field(default_factory=set)
    train_sets: set[int] = field(default_factory=set)

    @property
    def contradicts_itself(self) -> bool:
        return len(self.labels) > 1 or bool(self.test_sets & self.train_sets)


def entries(root: Path) -> Iterator[Entry]:
    """One clip an original video that has a label, keyed by its number with five digits. DFEW names no persons.

    Raises :class:`UserError` when ``root`` has no label files, or small clips and no originals.
    """
    tree = read_tree(
        root,
        annotation=lambda name: name.endswith((".csv", ".xlsx")),
        skip=lambda name: name.startswith(_SMALL),
    )
    yield from tree.passed_over
    originals = {key for key in tree.videos if key.startswith("Clip/original/")}
    if not originals and any((tree.root / "Clip").glob(f"{_SMALL}*")):
        raise UserError(
            f"{tree.root} has the clips of 224 px and no originals: no face of 480×720 can be cropped from them; "
            "unpack the archives of Clip/original"
        )
    known: dict[int, _Known] = {}
    yield from _read_labels(tree, known)
    if not known:
        raise UserError(f"no label files below {tree.root}; expected: {DFEW.layout}")
    listed: set[int] = set()
    for key in tree.videos:
        stem = PurePosixPath(key).stem
        number = _number(stem)
        if key not in originals:
            yield LeftOut(key, "does not lie below Clip/original")
        elif number is None:
            yield LeftOut(key, "its name is no number")
        elif number in listed:
            yield LeftOut(key, "another file has the same number")
        elif number not in known:
            yield LeftOut(key, f"no label file has its number (only {_WORKBOOK} has those without a single label)")
        else:
            listed.add(number)
            yield _clip(number, key, tree.path(key), known[number])
    for number in sorted(set(known) - listed):
        yield LeftOut(f"{known[number].where} {number}", _NO_VIDEO)


def _clip(number: int, key: str, path: Path, known: _Known) -> Clip | LeftOut:
    if known.contradicts_itself:
        return LeftOut(key, "its label files contradict each other (label, or train and test of one set)")
    (label,) = known.labels
    return Clip(
        DFEW.name,
        f"{number:05d}",
        str(path),
        licence=DFEW.licence,
        single_shot=False,
        labels=label_text(
            emotion=_EMOTIONS[label - 1] if label else None,
            votes=dict(zip(_EMOTIONS, known.votes, strict=True)) if known.votes else None,
            test_sets=sorted(known.test_sets) or None,
        ),
    )


def _read_labels(tree: Tree, known: dict[int, _Known]) -> Iterator[Entry]:
    """Fill ``known``; a row that cannot be used is left out, a file that is missing is named."""
    found: set[tuple[str, int]] = set()
    for key in tree.annotations:
        match = _SPLIT.fullmatch(key)
        if match:
            split, number = match[1], int(match[2])
            found.add((split, number))
            yield from _read_split(tree, key, split, number, known)
        elif key != _WORKBOOK:
            yield Ignored(PurePosixPath(key).suffix)
    missing = [f"{s}/set_{n}.csv" for s in ("train", "test") for n in _SETS if (s, n) not in found]
    if missing:
        yield Notice(f"not in {tree.root}/EmoLabel_DataSplit: {', '.join(missing)}; their labels are missing")
    if _WORKBOOK in tree.annotations:
        yield from _read_workbook(tree.path(_WORKBOOK), known)
    else:
        yield Notice(f"{_WORKBOOK} is not in {tree.root}: clips without a single label are left out")


def _read_split(tree: Tree, key: str, split: str, number: int, known: dict[int, _Known]) -> Iterator[LeftOut]:
    for row in csv_rows(tree.path(key), key, ["video_name", "label"]):
        if isinstance(row, LeftOut):
            yield row
            continue
        where, cells = f"{key}:{row[0]}", row[1]
        clip, label = _number(cells["video_name"]), _number(cells["label"])
        if clip is None or label is None or not 1 <= label <= len(_EMOTIONS):
            yield LeftOut(f"{where} {','.join(cells.values())[:80]}", _BAD_ROW)
            continue
        entry = known.setdefault(clip, _Known(where))
        entry.labels.add(label)
        (entry.test_sets if split == "test" else entry.train_sets).add(number)


def _read_workbook(path: Path, known: dict[int, _Known]) -> Iterator[Entry]:
    """``annotation.xlsx``: columns ``1happy`` … ``7fear`` (votes), ``label``, and one with the number of the clip."""
    from openpyxl import load_workbook  # only this dataset needs it
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if (
            unpacked > _WORKBOOK_MAX_BYTES
        ):  # the whole of a part may be in memory at once, and zip states its size bindingly
            yield Notice(f"{_WORKBOOK} is not used: unpacked it has {unpacked >> 20} MiB, the dataset's own has a few")
            return
        rows = load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
        header = [str(cell or "").strip().lower() for cell in next(rows, ())]
        columns = _columns(header)
        if columns is None:
            yield Notice(f"{_WORKBOOK} is not used: its columns are {', '.join(header)[:200]!a}")
            return
        for line, row in enumerate(rows, 2):
            if any(cell is not None for cell in row):
                yield from _read_row(f"{_WORKBOOK}:{line}", row, columns, known)
    except (OSError, BadZipFile, InvalidFileException, KeyError, ValueError, IndexError, SyntaxError) as error:
        yield Notice(f"{_WORKBOOK} cannot be read to its end ({type(error).__name__}); get it anew")


def _columns(header: list[str]) -> dict[str, int] | None:
    """Where the votes (by emotion), the ``label`` and the clip's number (``clip``) are; None if it cannot be told."""
    columns = {
        emotion: header.index(f"{n}{emotion}") for n, emotion in enumerate(_EMOTIONS, 1) if f"{n}{emotion}" in header
    }
    rest = [i for i, name in enumerate(header) if name and name != "label" and i not in columns.values()]
    if len(columns) != len(_EMOTIONS) or "label" not in header or len(rest) != 1:
        return None
    return {**columns, "label": header.index("label"), "clip": rest[0]}


def _read_row(
    where: str, row: tuple[object, ...], columns: Mapping[str, int], known: dict[int, _Known]
) -> Iterator[LeftOut]:
    cells = {name: str(row[i]) if i < len(row) else "" for name, i in columns.items()}
    numbers = {name: _number(cell) for name, cell in cells.items()}
    clip, label = numbers["clip"], numbers["label"]
    votes = [numbers[emotion] for emotion in _EMOTIONS]
    if clip is None or label is None or label > len(_EMOTIONS) or None in votes:
        yield LeftOut(f"{where} {cells['clip'][:80]}", _BAD_ROW)
        return
    entry = known.setdefault(clip, _Known(where))
    if entry.votes is not None:
        yield LeftOut(f"{where} {clip}", "a row whose clip the table has already")
        return
    entry.labels.add(label)
    entry.votes = [vote for vote in votes if vote is not None]


def _number(text: str) -> int | None:
    """``7``, ``00007``, ``7.0`` or ``7.mp4`` as 7."""
    match = re.fullmatch(r"(\d{1,5})(?:\.0|\.mp4)?", text.strip(), re.ASCII)
    return int(match[1]) if match else None
