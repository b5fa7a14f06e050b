"""What the JSON form of an expression means, once more, in plain Python: the reference for its readers."""

import math
from collections.abc import Mapping
from typing import Any


def from_json(form: Any, statistics: Mapping[str, float], settings: Mapping[str, Any]) -> float:
    """The value of ``form`` for one clip; ``settings`` is a configuration as JSON."""
    if isinstance(form, int | float):
        return float(form)
    kind, *rest = form
    if kind == "statistic":
        return statistics.get(rest[0], math.nan)
    if kind in ("setting", "choice"):
        found: Any = settings
        for key in rest[0].split("."):
            found = found[key]
        if kind == "choice":
            return from_json(rest[1][found], statistics, settings)
        return math.nan if found is None else float(found)
    values = [from_json(part, statistics, settings) for part in rest]
    if kind == "where":
        low, high, then, otherwise = values
        if math.isnan(low) or math.isnan(high):
            return math.nan
        return then if low < high else otherwise
    if any(map(math.isnan, values)):
        return math.nan
    if kind == "/":
        a, b = values
        if b == 0:
            return math.nan if a == 0 else math.copysign(math.inf, a) * math.copysign(1, b)
        return a / b
    simple = {"abs": abs, "minimum": min, "maximum": max}
    if kind in simple:
        return float(simple[kind](*values))
    a, b = values
    return {"+": a + b, "-": a - b, "*": a * b}[kind]
