"""Annotation files as they are: byte-order marks, other encodings, ragged rows, list literals; nothing is evaluated."""

import ast
import csv
from collections.abc import Collection, Iterator
from pathlib import Path

from curation.adapters.entries import LeftOut
from faceloom.errors import UserError

NOT_UTF8 = "a row that is not UTF-8; save the file as UTF-8"
RAGGED = "a row with more or fewer cells than the header"
UNREADABLE = "a row that cannot be read as CSV"

# A row of Panda-70M holds the captions of all clips of a video; the csv module's own limit is 128 KiB.
_CELL_BYTES = 1 << 26


def text_lines(path: Path, name: str) -> Iterator[tuple[int, str] | LeftOut]:
    """The lines of a text file that are not blank, with their numbers from 1; a line that is not UTF-8 is left out.

    ``name`` is what the file is called in a :class:`LeftOut`. Raises :class:`UserError` if the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if not _is_text(line):
                    yield LeftOut(f"{name}:{number}", NOT_UTF8)
                elif line.strip():
                    yield number, line.strip()
    except OSError as error:
        raise _cannot_read(path, error) from None


def csv_rows(path: Path, name: str, needed: Collection[str]) -> Iterator[tuple[int, dict[str, str]] | LeftOut]:
    """The rows of a CSV file with a header, by column, with the numbers of the lines they begin on; cells are stripped.

    A row that cannot be told apart from its neighbours for sure is left out. ``name`` is what the file is called in a
    :class:`LeftOut`. Raises :class:`UserError` if the file cannot be read or a column of ``needed`` is not in its header.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_BYTES))
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            missing = [column for column in needed if column not in header]
            if missing:
                told = ascii(",".join(header)[:120])
                raise UserError(f"{path} has no column {', '.join(missing)} (its header: {told}); get the file anew")
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error:
                    yield LeftOut(f"{name}:{line}", UNREADABLE)
                    continue
                if cells is None:
                    return
                if not all(map(_is_text, cells)):
                    yield LeftOut(f"{name}:{line}", NOT_UTF8)
                elif len(cells) == len(header):
                    yield line, {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
                elif cells:
                    yield LeftOut(f"{name}:{line}", RAGGED)
    except OSError as error:
        raise _cannot_read(path, error) from None


def list_literal(text: str) -> list[object]:
    """The list that a cell spells as a Python literal; calls nothing. Raises ``ValueError`` when it is anything else."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("no list literal") from None
    if not isinstance(value, list):
        raise ValueError("no list literal")
    return value


def _cannot_read(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}; mend its rights or get it anew")


def _is_text(text: str) -> bool:
    """Whether the bytes were UTF-8: others were read as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
