"""Which result belongs to which reference, driver and truth."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faceloom.errors import UserError

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_COLUMNS = ("name", "result", "reference", "driving", "truth")


@dataclass(frozen=True)
class Pair:
    """A result and what it is measured by; None for what there is not."""

    name: str
    result: Path
    reference: Path | None
    driving: Path | None
    truth: Path | None


def from_folders(results: Path, references: Path, driving: Path, truth: Path | None) -> list[Pair]:
    """One pair for each video of ``results``; the others are found by its name without the suffix.

    What is missing there is left out. Raises :class:`UserError` if a folder cannot be listed, holds no video of the kind
    or two of one name.
    """
    made = _by_stem(results, "--results", VIDEOS)
    if not made:
        raise UserError(f"--results: {results} holds no video ({', '.join(VIDEOS)})")
    people, drivers = _by_stem(references, "--references", IMAGES), _by_stem(driving, "--driving", VIDEOS)
    truths = _by_stem(truth, "--truth", VIDEOS) if truth else {}
    if not made.keys() & (people.keys() | drivers.keys()):
        raise UserError(
            f"no video of {results} has a fellow of its name in {references} or {driving}; name them alike "
            f"({next(iter(made))}.mp4, {next(iter(made))}.png), or say with --pairs which belong together"
        )
    return [Pair(name, path, people.get(name), drivers.get(name), truths.get(name)) for name, path in made.items()]


def from_table(table: Path) -> list[Pair]:
    """The rows of a CSV file with the columns name, result, reference, driving and, if wanted, truth.

    Paths are taken from the table's folder on. An empty cell is something that there is not. Raises :class:`UserError` naming
    the row that is wrong.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = set(_COLUMNS[:4]) - set(rows.fieldnames or ())
            if missing:
                needed = ", ".join(_COLUMNS[:4])
                raise UserError(f"--pairs: {table} lacks the column {', '.join(sorted(missing))}; it needs {needed}")
            pairs = [_pair(table, number, row) for number, row in enumerate(rows, 2)]
    except OSError as error:
        raise UserError(f"--pairs: cannot read {table}: {error.strerror}; name another table") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"--pairs: cannot read {table}, it is no CSV table in UTF-8 ({error}); save it as one"
        ) from None
    names = [pair.name for pair in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--pairs: {table} has two rows of the name {twice!r}; name them apart")
    if not pairs:
        raise UserError(f"--pairs: {table} has no row")
    return pairs


def _pair(table: Path, number: int, row: dict[str, str | None]) -> Pair:
    if not row["name"] or not row["result"]:
        raise UserError(f"--pairs: line {number} of {table} has no name or no result")
    _, result, *others = ((table.parent / cell) if (cell := row.get(column)) else None for column in _COLUMNS)
    assert result is not None
    return Pair(row["name"], result, *others)


def _by_stem(folder: Path, option: str, suffixes: Sequence[str]) -> dict[str, Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise UserError(f"{option}: cannot list {folder}: {error.strerror}; name a folder") from None
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise UserError(f"{option}: {found[path.stem].name} and {path.name} have one name; rename one of them")
        found[path.stem] = path
    return found
