"""The command ``faceloom``: every command's arguments, and nothing of its work.

A module here holds commands that go together. Heavy packages (torch, ray, mediapipe) are imported inside the commands that
need them, so that ``--help`` answers at once. Exit codes: 0 success, 1 a check did not pass, 2 wrong use or bad input.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import faceloom
from faceloom import logs
from faceloom.cli import animate, audit, dataset, demo, evaluate, ingest, landmarks, models, runs, shards, train
from faceloom.errors import CheckFailed, UserError
from faceloom.storage_errors import is_of_storage, reason, remedy
from faceloom.terminal import PlainConsole

app = typer.Typer(
    help="Raw footage of people into training data for portrait-animation video models.",
    epilog="Example: faceloom models fetch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# In the order of `faceloom --help`.
for _commands in (runs, train, dataset, audit, animate, evaluate, demo):
    app.add_typer(_commands.commands)
for _group in (models, ingest, landmarks, shards, audit):
    app.add_typer(_group.group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``None`` takes the process's own arguments."""
    logs.set_up()
    try:
        app(arguments, prog_name="faceloom")
    except UserError as error:
        _complain("error", str(error))
        sys.exit(2)
    except CheckFailed as error:
        _complain("failed", str(error))
        sys.exit(1)
    except Exception as error:
        if not is_of_storage(error):
            raise
        told = reason(error)
        _complain("error", told if remedy(error) in told else f"{told}; {remedy(error)}")
        sys.exit(2)


def _complain(label: str, message: str) -> None:
    console = PlainConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"{label}: ", style="bold red", end="")
    console.print(message)


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
