"""The table of a batch: which portrait moves as which driver."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from animation.animate import Pair
from faceloom.errors import UserError

COLUMNS, OPTIONAL = ("portrait", "driving"), ("name", "seed")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_MAX_SEED = 2**63


@dataclass(frozen=True)
class Row:
    """A line of the table. The result is ``NAME.mp4`` in the folder of the batch."""

    name: str
    portrait: Path
    driving: Path
    seed: int

    def pair(self, folder: Path) -> Pair:
        """What is to be made of it, in ``folder``."""
        return Pair(self.portrait, self.driving, folder / f"{self.name}.mp4")


def read_pairs(table: Path, seed: int) -> list[Row]:
    """The rows of the CSV file ``table``: columns portrait, driving, and if wanted name and seed.

    Paths are relative to the table's folder. Without a name a row is called for its two files, without a seed it has
    ``seed``. Raises :class:`UserError`, which names line and remedy; whether the files are there is not looked at.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(table, csv.DictReader(file, strict=True), seed))
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}; give another table with --batch") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table} is no CSV table in UTF-8: {error}; save it as one") from None
    if not rows:
        raise UserError(f"{table} lists no pair; give it a line for each, below the heading {','.join(COLUMNS)}")
    return rows


def _rows(table: Path, lines: "csv.DictReader[str]", seed: int) -> Iterator[Row]:
    found = [(heading or "").strip() for heading in lines.fieldnames or ()]
    lines.fieldnames = found
    if not set(COLUMNS) <= set(found) or not set(found) <= {*COLUMNS, *OPTIONAL}:
        raise UserError(
            f"{table} has the columns {', '.join(found) or 'of an empty file'}; it must have {' and '.join(COLUMNS)}, "
            f"and may have {' and '.join(OPTIONAL)}"
        )
    taken: dict[str, int] = {}
    for cells in lines:
        place = f"{table}, line {lines.line_num}"
        if None in cells or None in cells.values():
            raise UserError(f"{place}: it has not {len(found)} cells; put paths with commas between quotes")
        portrait, driving = cells["portrait"].strip(), cells["driving"].strip()
        if not portrait or not driving:
            raise UserError(f"{place}: a portrait and a driving video are needed")
        name = cells.get("name", "").strip() or _name_of(portrait, driving)
        if not _NAME.fullmatch(name):
            raise UserError(f"{place}: the name {name!r} is to name a file; take letters, digits, _, - and dots only")
        # Some file systems do not tell upper case from lower.
        if taken.setdefault(name.casefold(), lines.line_num) != lines.line_num:
            raise UserError(
                f"{place}: the name {name} is that of line {taken[name.casefold()]}, too; tell them apart in a column name"
            )
        yield Row(name, _path(table, portrait), _path(table, driving), _seed(place, cells.get("seed", ""), seed))


def _name_of(portrait: str, driving: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{Path(portrait).stem}_{Path(driving).stem}").lstrip("-.")
    return name or "animation"


def _path(table: Path, cell: str) -> Path:
    return table.absolute().parent / Path(cell).expanduser()


def _seed(place: str, cell: str, otherwise: int) -> int:
    cell = cell.strip()
    if not cell:
        return otherwise
    if not (cell.isascii() and cell.isdecimal()) or int(cell) >= _MAX_SEED:
        raise UserError(f"{place}: the seed {cell!r} is no whole number from 0 on")
    return int(cell)
