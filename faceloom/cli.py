"""The command ``faceloom``: every command's arguments, and nothing of its work.

Heavy packages (torch, ray, mediapipe) are imported inside the commands that need them, so that ``--help`` answers at
once. Exit codes: 0 success, 1 a check did not pass, 2 wrong use or bad input.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import faceloom
from faceloom import config, models
from faceloom.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from curation.sources import Clip

app = typer.Typer(
    help="Raw footage of people into training data for portrait-animation video models.",
    epilog="Example: faceloom models fetch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="The models and demo videos that runs use: what they are, how to get them.", no_args_is_help=True
)
app.add_typer(models_app, name="models", epilog="Example: faceloom models list")

ingest_app = typer.Typer(
    help="List the clips of a dataset: the manifest that `curate` works through.", no_args_is_help=True
)
app.add_typer(ingest_app, name="ingest", epilog="Example: faceloom ingest demo --root demo-videos --out demo.parquet")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
ModelNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", show_default=False, help="As `faceloom models list` names them.")
]

ManifestOut = Annotated[Path, typer.Option("--out", metavar="MANIFEST", help="Parquet file to write.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``None`` takes the process's own arguments."""
    try:
        app(arguments, prog_name="faceloom")
    except UserError as error:
        _complain("error", str(error))
        sys.exit(2)
    except CheckFailed as error:
        _complain("failed", str(error))
        sys.exit(1)


def _complain(label: str, message: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{label}:[/] ", end="")
    console.print(message, markup=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"faceloom {faceloom.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@models_app.command("list", epilog="Example: faceloom models list --json")
def models_list(as_json: AsJson = False) -> None:
    """List every model and demo file; --json also gives source, sha256 and path of each."""
    local = [models.locate(name) for name in models.files()]
    hub = models.hub_models().values()
    if as_json:
        typer.echo(json.dumps([_as_dict(state) for state in local] + [vars(model) for model in hub], indent=2))
        return
    table = Table("name", "state", "MB", "licence", "what it is", box=None, header_style="bold")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for state in local:
        row = state.model
        table.add_row(row.name, _state(state), f"{row.size_bytes / 1e6:.1f}", row.licence, row.note)
    for model in hub:
        table.add_row(model.name, "from hub", "", model.licence, f"{model.hub_id}: {model.note}")
    Console().print(table)


@models_app.command("fetch", epilog="Example: faceloom models fetch --for demo")
def models_fetch(
    names: ModelNames = None,
    for_config: Annotated[
        str | None, typer.Option("--for", metavar="CONFIG", help="Fetch what this curation config asks for.")
    ] = None,
) -> None:
    """Fetch files into the cache: those named, those a config asks for, or else all. What is there stays."""
    wanted = [*(names or []), *(_models_of(for_config) if for_config else [])]
    for name, path in models.fetch(wanted or models.files(), typer.echo).items():
        typer.echo(f"{name}: {path}")


@models_app.command("verify", epilog="Example: faceloom models verify raft-large")
def models_verify(names: ModelNames = None, as_json: AsJson = False) -> None:
    """Hash the files again. Exits 1 if one is not the pinned one, or if a file that was named is missing."""
    states = models.verify(names or None)
    if as_json:
        typer.echo(json.dumps([_as_dict(state) for state in states], indent=2))
    else:
        for state in states:
            typer.echo(f"{_state(state)}: {state.model.name}" + (f"  {state.path}" if state.path else ""))
    bad = [state for state in states if not state.usable and (names or state.path)]
    if bad:
        listed = ", ".join(f"{state.model.name} ({_state(state)})" for state in bad)
        command = " ".join(["faceloom models fetch", *(state.model.name for state in bad)])
        raise CheckFailed(f"{listed}; get it right with: {command}")


@ingest_app.command("folder", epilog="Example: faceloom ingest folder --root ~/footage --out footage.parquet")
def ingest_folder(
    root: Annotated[Path, typer.Option(help="Folder whose videos to list, however deep they lie.")],
    out: ManifestOut,
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset; by default the folder's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the footage; goes into every sample.")] = "unknown",
) -> None:
    """List any folder of videos, one clip a file."""
    from curation.ingest import folder_clips

    listing = folder_clips(root, dataset, licence)
    duplicates = sum(clip.duplicate_of is not None for clip in listing.clips)
    clips = _write_manifest(listing.clips, out)
    typer.echo(f"{out}: {clips} clips, {duplicates} of them with the bytes of an earlier one")
    if listing.ignored:
        counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in listing.ignored.items())
        typer.echo(f"passed over, no videos by their names: {counts}")
    for folder in listing.unreadable:
        typer.echo(f"cannot be listed, its videos are missing: {folder}", err=True)


@ingest_app.command("demo", epilog="Example: faceloom ingest demo --root demo-videos --out demo.parquet")
def ingest_demo(
    root: Annotated[Path, typer.Option(help="Folder to write the demo's videos to.")], out: ManifestOut
) -> None:
    """Make the demo's videos, each for one outcome, and list them."""
    from curation.demo import demo_clips

    typer.echo(f"{out}: {_write_manifest(demo_clips(root), out)} clips, their videos in {root}")


def _write_manifest(clips: Sequence["Clip"], out: Path) -> int:
    from curation.sources import write_manifest

    try:
        return write_manifest(clips, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name a file in an existing folder with --out") from None


def _models_of(source: str) -> list[str]:
    from curation.config import CurationConfig

    return ["face_landmarker", config.load(CurationConfig, source).flow.model]


def _state(local: models.LocalFile) -> str:
    if local.path is None:
        return "not fetched"
    return "ready" if local.usable else "wrong file"


def _as_dict(local: models.LocalFile) -> dict[str, Any]:
    return {
        **vars(local.model),
        "state": _state(local),
        "path": str(local.path) if local.path else None,
        "found_sha256": local.sha256,
    }
