"""Arithmetic over statistics and settings, as data: one definition for a worker, for a whole ledger and for a page.

An expression is a small immutable tree, written with operators: ``abs(statistic("pitch_median_deg")) / 2``.
:func:`evaluate` takes one clip's floats or a ledger's columns and gives the same bits for either, and so does JavaScript
with what :func:`as_json` writes, for every operation is one of IEEE 754's on doubles. NaN stands for "not measured", and
what is made of it is NaN.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.statistics import STATISTICS
from faceloom.config import Section

Number = float | npt.NDArray[np.float64]

_OPERATIONS: dict[str, np.ufunc] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "abs": np.absolute,
    "minimum": np.minimum,
    "maximum": np.maximum,
}


class Expression:
    """A node; made by the functions below and by operators between nodes and numbers."""

    def __add__(self, other: "Expression | float") -> "Expression":
        return Applied("+", (self, _node(other)))

    def __radd__(self, other: float) -> "Expression":
        return Applied("+", (_node(other), self))

    def __sub__(self, other: "Expression | float") -> "Expression":
        return Applied("-", (self, _node(other)))

    def __rsub__(self, other: float) -> "Expression":
        return Applied("-", (_node(other), self))

    def __mul__(self, other: "Expression | float") -> "Expression":
        return Applied("*", (self, _node(other)))

    def __rmul__(self, other: float) -> "Expression":
        return Applied("*", (_node(other), self))

    def __truediv__(self, other: "Expression | float") -> "Expression":
        return Applied("/", (self, _node(other)))

    def __rtruediv__(self, other: float) -> "Expression":
        return Applied("/", (_node(other), self))

    def __abs__(self) -> "Expression":
        return Applied("abs", (self,))

    def __lt__(self, other: "Expression | float") -> "Less":
        return Less(self, _node(other))

    def __gt__(self, other: "Expression | float") -> "Less":
        return Less(_node(other), self)


@dataclass(frozen=True)
class Constant(Expression):
    """The same number for every clip and configuration."""

    value: float


@dataclass(frozen=True)
class Measured(Expression):
    """A statistic of the clip."""

    name: str


@dataclass(frozen=True)
class Setting(Expression):
    """A number of the configuration; None, a limit that is not set, is NaN."""

    path: str


@dataclass(frozen=True)
class Applied(Expression):
    """An operation of ``_OPERATIONS`` on its operands."""

    operation: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Less:
    """``low`` is below ``high``: what :func:`where` asks."""

    low: Expression
    high: Expression

    def __bool__(self) -> bool:
        raise TypeError("a comparison of expressions has no value of its own; put it into where()")


@dataclass(frozen=True)
class Where(Expression):
    """``then`` or ``otherwise``, by a comparison; NaN where that compares with NaN."""

    asks: Less
    then: Expression
    otherwise: Expression


@dataclass(frozen=True)
class Choice(Expression):
    """One of several expressions, by a setting that is a word."""

    path: str
    options: tuple[tuple[str, Expression], ...]


def constant(value: float) -> Expression:
    """The number itself."""
    return Constant(float(value))


def statistic(name: str) -> Expression:
    """A column of the ledger. Raises ``KeyError`` if :mod:`curation.statistics` has no such statistic."""
    return Measured(STATISTICS[name].name)


def setting(path: str) -> Expression:
    """A number of the configuration by its dotted name, ``crop.max_upscale``; rules check that it exists."""
    return Setting(path)


def minimum(*operands: Expression | float) -> Expression:
    """The smallest of two or more."""
    return _fold("minimum", operands)


def maximum(*operands: Expression | float) -> Expression:
    """The largest of two or more."""
    return _fold("maximum", operands)


def where(asks: Less, then: Expression | float, otherwise: Expression | float) -> Expression:
    """``where(a < b, x, y)``: x where a is below b, else y."""
    return Where(asks, _node(then), _node(otherwise))


def choice(path: str, **options: Expression | float) -> Expression:
    """The option that the setting at ``path`` names: ``choice("motion.mode", any=…, all=…)``."""
    return Choice(path, tuple((word, _node(option)) for word, option in options.items()))


def evaluate(expression: Expression, statistics: Mapping[str, Number], settings: Section) -> Number:
    """The value for one clip (floats) or for every row of a ledger (float64 arrays of one length).

    A statistic that ``statistics`` lacks is NaN. The result is an array only if a statistic that is one takes part.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = _value(expression, statistics, settings)
    return value if isinstance(value, np.ndarray) else float(value)


def read_setting(settings: Section, path: str) -> Any:
    """The setting with the dotted name ``path``. Raises ``AttributeError`` if there is none."""
    return attrgetter(path)(settings)


def nodes(expression: Expression) -> Iterator[Expression]:
    """The expression and everything in it."""
    yield expression
    for part in _parts(expression):
        yield from nodes(part)


def statistics_in(expression: Expression) -> set[str]:
    """The statistics that the expression reads."""
    return {node.name for node in nodes(expression) if isinstance(node, Measured)}


def settings_in(expression: Expression) -> set[str]:
    """The dotted names of the settings that the expression reads."""
    return {node.path for node in nodes(expression) if isinstance(node, Setting | Choice)}


def as_json(expression: Expression) -> Any:
    """The tree as JSON: a number, or a list that begins with what it is.

    ``["statistic", name]``, ``["setting", path]``, ``["+" | "-" | "*" | "/" | "minimum" | "maximum", a, b]``, ``["abs", a]``,
    ``["where", low, high, x, y]`` (x if low < high else y, NaN if low or high is NaN), ``["choice", path, {word: x, …}]``.
    """
    match expression:
        case Constant(value):
            return value
        case Measured(name):
            return ["statistic", name]
        case Setting(path):
            return ["setting", path]
        case Choice(path, options):
            return ["choice", path, {word: as_json(option) for word, option in options}]
        case Where():
            return ["where", *map(as_json, _parts(expression))]
        case Applied(operation, operands):
            return [operation, *map(as_json, operands)]
    raise TypeError(f"{expression!r} is not an expression")


def _value(expression: Expression, statistics: Mapping[str, Number], settings: Section) -> Any:
    match expression:
        case Constant(value):
            return value
        case Measured(name):
            return statistics.get(name, np.nan)
        case Setting(path):
            chosen = read_setting(settings, path)
            return np.nan if chosen is None else float(chosen)
        case Choice(path, options):
            return _value(dict(options)[read_setting(settings, path)], statistics, settings)
        case Where():
            low, high, then, otherwise = (_value(part, statistics, settings) for part in _parts(expression))
            chosen = np.where(low < high, then, otherwise)
            return np.where(np.isnan(low) | np.isnan(high), np.nan, chosen)[()]
        case Applied(operation, operands):
            return _OPERATIONS[operation](*(_value(operand, statistics, settings) for operand in operands))
    raise TypeError(f"{expression!r} is not an expression")


def _parts(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Applied(_, operands):
            return operands
        case Where(asks, then, otherwise):
            return asks.low, asks.high, then, otherwise
        case Choice(_, options):
            return tuple(option for _, option in options)
    return ()


def _fold(operation: str, operands: tuple[Expression | float, ...]) -> Expression:
    first, *rest = operands
    result = _node(first)
    for operand in rest:
        result = Applied(operation, (result, _node(operand)))
    return result


def _node(value: Expression | float) -> Expression:
    return value if isinstance(value, Expression) else constant(value)
