"""``faceloom models``: what models there are, which of them are here, and how to get the others."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from faceloom import config, models
from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson
from faceloom.errors import CheckFailed

group = typer.Typer(
    name="models",
    help="The models and demo videos that runs use: what they are, how to get them.",
    epilog="Example: faceloom models list",
    no_args_is_help=True,
)


ModelNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", show_default=False, help="As `faceloom models list` names them.")
]


@group.command("list", epilog="Example: faceloom models list --json")
def models_list(as_json: AsJson = False) -> None:
    """List every model and demo file; --json also gives source, sha256 and path of each."""
    local = [models.locate(name) for name in models.files()]
    supplied = {row: models.locate_user_file(name) for name, row in models.user_files().items()}
    hub = models.hub_models().values()
    if as_json:
        of_user = [_user_file_as_dict(row, path) for row, path in supplied.items()]
        print_json([_as_dict(state) for state in local] + of_user + [vars(model) for model in hub])
        return
    table = Table("name", "state", "MB", "licence", "what it is", box=None, header_style="bold")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for state in local:
        row = state.model
        table.add_row(row.name, _state(state), f"{row.size_bytes / 1e6:.1f}", row.licence, row.note)
    for user_file, path in supplied.items():
        size = f"{path.stat().st_size / 1e6:.1f}" if path else ""
        table.add_row(user_file.name, _user_state(path), size, user_file.licence, user_file.note)
    for model in hub:
        table.add_row(model.name, "from hub", "", model.licence, f"{model.hub_id}: {model.note}")
    console = text_console()
    console.print(table)
    console.print(
        "What you supply yourself has no pinned sha256 and is taken as it is. --json tells where from and where to."
    )


@group.command("fetch", epilog="Example: faceloom models fetch --for demo")
def models_fetch(
    names: ModelNames = None,
    for_config: Annotated[
        str | None, typer.Option("--for", metavar="CONFIG", help="Fetch what this curation config asks for.")
    ] = None,
) -> None:
    """Fetch files into the cache: those named, those a config asks for, or else all. What is there stays."""
    wanted = [*(names or []), *(models_of(for_config) if for_config else [])]
    for name, path in models.fetch(wanted or models.files(), typer.echo).items():
        typer.echo(f"{name}: {path}")


@group.command("verify", epilog="Example: faceloom models verify raft-large")
def models_verify(names: ModelNames = None, as_json: AsJson = False) -> None:
    """Hash the files again. Exits 1 if one is not the pinned one, or if a file that was named is missing."""
    states = models.verify(names or None)
    if as_json:
        print_json([_as_dict(state) for state in states])
    else:
        for state in states:
            typer.echo(f"{_state(state)}: {state.model.name}" + (f"  {state.path}" if state.path else ""))
    bad = [state for state in states if not state.usable and (names or state.path)]
    if bad:
        listed = ", ".join(f"{state.model.name} ({_state(state)})" for state in bad)
        command = " ".join(["faceloom models fetch", *(state.model.name for state in bad)])
        raise CheckFailed(f"{listed}; get it right with: {command}")


def models_of(source: str) -> list[str]:
    """The models that curating with the config ``source`` needs."""
    from curation.config import CurationConfig

    return ["face_landmarker", config.load(CurationConfig, source).flow.model]


def _state(local: models.LocalFile) -> str:
    if local.path is None:
        return "not fetched"
    return "ready" if local.usable else "wrong file"


def _user_state(path: Path | None) -> str:
    return "ready" if path else "supply it yourself"


def _user_file_as_dict(row: models.UserFile, path: Path | None) -> dict[str, Any]:
    return {
        **vars(row),
        "state": _user_state(path),
        "path": str(path) if path else None,
        "put_at": str(row.put_at),
    }


def _as_dict(local: models.LocalFile) -> dict[str, Any]:
    return {
        **vars(local.model),
        "state": _state(local),
        "path": str(local.path) if local.path else None,
        "found_sha256": local.sha256,
    }
