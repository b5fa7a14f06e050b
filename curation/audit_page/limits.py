"""What the rules ask of single statistics: the lines that a page draws into their histograms.

A rule may bound several statistics at once, each over a threshold of its own (``motion``), or one that it scales by a
setting. Each such part is rewritten to "this statistic, at least or at most that threshold".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from curation.expressions import (
    Applied,
    Choice,
    Constant,
    Expression,
    Measured,
    Setting,
    Where,
    settings_in,
    statistics_in,
)
from curation.rules import Rule


@dataclass(frozen=True)
class Limit:
    """Rule ``rule`` bounds ``value``, which reads statistics only, by ``threshold``, which reads settings only."""

    rule: str
    value: Expression
    threshold: Expression
    at_most: bool


def limits(rules: Iterable[Rule]) -> list[Limit]:
    """Every limit of every rule, in order and each once; parts that cannot be rewritten so are left out."""
    found = (
        limit
        for rule in rules
        if not statistics_in(rule.threshold)
        for limit in _limits(rule.name, rule.value, rule.threshold, rule.at_most)
    )
    return list(dict.fromkeys(found))


def _limits(rule: str, value: Expression, threshold: Expression, at_most: bool) -> Iterator[Limit]:
    if not statistics_in(value):
        return
    if not settings_in(value):
        yield Limit(rule, value, threshold, at_most)
        return
    match value:
        case Applied("minimum" | "maximum", operands):
            for operand in operands:
                yield from _limits(rule, operand, threshold, at_most)
        case Choice(_, options):
            for _, option in options:
                yield from _limits(rule, option, threshold, at_most)
        case Where(asks, then, otherwise):
            # Which branch counts is decided by a statistic against a threshold of its own.
            for low, high, above in ((asks.low, asks.high, False), (asks.high, asks.low, True)):
                if statistics_in(low) and not statistics_in(high):
                    yield from _limits(rule, low, high, above)
            yield from _limits(rule, then, threshold, at_most)
            yield from _limits(rule, otherwise, threshold, at_most)
        case Applied("/", (dividend, divisor)) if not statistics_in(divisor):
            scaled = divisor if threshold == Constant(1.0) else threshold * divisor
            yield from _limits(rule, dividend, scaled, at_most)


def describe(expression: Expression) -> str:
    """The expression as a formula to read: ``face_height_px / (480 / crop.max_upscale)``."""
    match expression:
        case Constant(value):
            return f"{value:g}"
        case Measured(name):
            return name
        case Setting(path):
            return path
        case Choice(path, options):
            return "; ".join(f"{describe(option)} if {path} is {word}" for word, option in options)
        case Where(asks, then, otherwise):
            asked = f"{describe(asks.low)} < {describe(asks.high)}"
            return f"{describe(then)} if {asked} else {describe(otherwise)}"
        case Applied("abs", (operand,)):
            return f"|{describe(operand)}|"
        case Applied("minimum" | "maximum" as name, _):
            return f"{name[:3]}({', '.join(map(describe, _flat(expression, name)))})"
        case Applied(sign, operands):
            return f" {sign} ".join(f"({describe(o)})" if _compound(o) else describe(o) for o in operands)
    raise TypeError(f"{expression!r} is not an expression")


def _flat(expression: Expression, name: str) -> Iterator[Expression]:
    match expression:
        case Applied(operation, operands) if operation == name:
            for operand in operands:
                yield from _flat(operand, name)
        case _:
            yield expression


def _compound(expression: Expression) -> bool:
    match expression:
        case Applied(operation, _):
            return operation in {"+", "-", "*", "/"}
        case Where() | Choice():
            return True
    return False
