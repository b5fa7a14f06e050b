"""The settings that rules read, as controls of a page: kind, bounds, and the range that is worth moving in."""

from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from curation.config import CurationConfig
from curation.expressions import read_setting, settings_in
from curation.rules import Rule


def settings_read(rules: Iterable[Rule]) -> list[str]:
    """The dotted names of the settings that ``rules`` read, in the order of the rules and then of the configuration."""
    ordered: dict[str, None] = {}
    for rule in rules:
        ordered |= dict.fromkeys(sorted(settings_in(rule.threshold)) + sorted(settings_in(rule.value)))
    return list(ordered)


def control(path: str, config: CurationConfig) -> dict[str, Any]:
    """How the setting at ``path`` may be set, with the value it has in ``config``.

    ``kind`` is ``number``, ``whole`` (a number), ``word`` (one of ``words``) or ``switch``; ``optional`` says that there may
    be no value. ``least`` and ``most`` are the bounds that the configuration itself sets, if any; ``above`` and ``below``
    are bounds that are no values themselves.
    """
    section, _, name = path.rpartition(".")
    field = type(read_setting(config, section)).model_fields[name]
    kinds = [field.annotation]
    if get_origin(field.annotation) in (Union, UnionType):
        kinds = list(get_args(field.annotation))
    made: dict[str, Any] = {
        "path": path,
        "value": read_setting(config, path),
        "optional": type(None) in kinds,
    }
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        return made | {"kind": "word", "words": list(get_args(kind))}
    if kind is bool:
        return made | {"kind": "switch"}
    made["kind"] = "whole" if kind is int else "number"
    for bound in field.metadata:
        match bound:
            case Ge(ge=limit):
                made["least"] = limit
            case Gt(gt=limit):
                made["above"] = limit
            case Le(le=limit):
                made["most"] = limit
            case Lt(lt=limit):
                made["below"] = limit
    return made
