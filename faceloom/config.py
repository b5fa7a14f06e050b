"""Typed configuration: pydantic sections, YAML files, dotted overrides; unknown keys are refused by name.

A section lives beside the function it configures (``curation.motion.MotionConfig``); this module only knows how to
read and override a tree of them. One file serves a whole chain: it has a part for each command that reads it.
"""

import difflib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from faceloom.errors import UserError


class Section(BaseModel):
    """Base of every configuration section: frozen, and strict about keys it does not know.

    NaN and infinity are refused, since JSON (``dataset.json``, fingerprints) cannot hold them. A section that is named
    in the YAML but left empty has its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    part: ClassVar[str | None] = None
    """Of a command's whole configuration: its key in a file. A tree without one is the file."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


ConfigT = TypeVar("ConfigT", bound=Section)

PARTS = ("curate", "encode", "train", "animate", "evaluate")
"""The commands that a file may have a part for."""


def load(
    model: type[ConfigT], source: str | None, overrides: Sequence[str] = (), base: ConfigT | None = None
) -> ConfigT:
    """Read ``model``'s part of ``source`` (a YAML file, or a packaged config such as ``demo``); apply ``a.b=c`` overrides.

    Without a ``source`` they apply to ``base``, or to the defaults. Raises :class:`UserError` that names the key, the nearest
    valid one, and the source.
    """
    tree: dict[str, Any] = {} if base is None else base.model_dump(mode="json")
    label = "the defaults" if base is None else "that of the dataset"
    if source is not None:
        path = resolve(source)
        label = str(path)
        tree = _part(_read_yaml(path), model.part, path) if model.part else _read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        where = label if not overrides else f"{label} with --set {' --set '.join(overrides)}"
        raise UserError(f"bad configuration ({where}):\n" + "\n".join(f"  {line}" for line in lines)) from None


def by_part(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Overrides ``part.a.b=c`` of a whole file, as overrides ``a.b=c`` of each of its :data:`PARTS`.

    Raises :class:`UserError` for one that begins with no part.
    """
    sorted_: dict[str, list[str]] = {part: [] for part in PARTS}
    for override in overrides:
        part, dot, rest = override.partition(".")
        if not dot or part not in sorted_:
            raise UserError(f"--set {override}: here a key begins with one of {', '.join(PARTS)}")
        sorted_[part].append(rest)
    return sorted_


def resolve(source: str) -> Path:
    """The file behind ``--config``: an existing path, or a packaged config by its bare name."""
    path = Path(source)
    if path.is_file():
        return path
    packaged = {file.stem: file for file in _packaged_folder().glob("*.yaml")}
    if source in packaged:
        return packaged[source]
    names = ", ".join(sorted(packaged)) or "none"
    raise UserError(f"no configuration file {source!r}; give a YAML file or one of the packaged names: {names}")


def differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Where two trees differ, one line a leaf: ``flow.scale: 1.0 → 0.5``. ``prefix`` comes before every key."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in sorted({*before, *now})
            for line in differences(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if before == now else [f"{prefix}: {before} → {now}"]


def _packaged_folder() -> Path:
    package = Path(str(importlib.resources.files("faceloom")))
    # An installed wheel carries the configs inside the package; a checkout has them beside it.
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping of sections, not {type(tree).__name__}")
    return tree


def _part(tree: dict[str, Any], part: str, path: Path) -> dict[str, Any]:
    strangers = [key for key in tree if key not in PARTS]
    if strangers:
        raise UserError(
            f"bad configuration ({path}):\n  {strangers[0]}: a file's parts are {', '.join(PARTS)}; "
            f"put the settings of `faceloom {part}` below `{part}:`"
        )
    found = tree.get(part)
    if not isinstance(found, dict | None):
        raise UserError(f"bad configuration ({path}):\n  {part}: must hold a mapping of sections")
    return found or {}


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes section.key=value, not {override!r}")
    *parents, leaf = key.split(".")
    node: Any = tree
    for parent in parents:
        node = _child(node, parent, override)
    if not isinstance(node, dict):
        raise UserError(f"--set {override}: {parents[-1]!r} is a list; say which of them, and then its key")
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError:
        node[leaf] = value


def _child(node: Any, key: str, override: str) -> Any:
    """The section or list ``key`` of a section, which need not be there yet; of a list, the section with that ``name``."""
    if isinstance(node, list):
        named = {str(item["name"]): item for item in node if isinstance(item, dict) and "name" in item}
        if key not in named:
            raise UserError(
                f"--set {override}: the list has no {key!r}; it has {', '.join(named) or 'nothing with a name'}"
            )
        return named[key]
    if node.get(key) is None:
        node[key] = {}
    if not isinstance(node[key], dict | list):
        raise UserError(f"--set {override}: {key!r} is a value, not a section")
    return node[key]


def _explain(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        # The input of a check across keys is the whole section, which would bury the message.
        given = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
        return f"{key}: {message}{given}" if key else f"{message}{given}"
    if key in PARTS:
        return f"{key}: no such key; keys are named from below {key} on here, without it"
    nearest = difflib.get_close_matches(key, _leaves(model), n=1, cutoff=0.0)
    return f"{key}: no such key; nearest is {nearest[0]}" if nearest else f"{key}: no such key"


def _leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys.append(f"{prefix}{name}")
            keys.extend(_leaves(kind, f"{prefix}{name}."))
        else:
            keys.append(f"{prefix}{name}")
    return keys
