"""How a command answers: text for a person, JSON for a program."""

import json

import typer
from rich.console import Console

from faceloom.terminal import PlainConsole


def text_console(*, stderr: bool = False) -> Console:
    """Standard output, or error, with brackets and colons in file names left as they are."""
    return PlainConsole(markup=False, emoji=False, stderr=stderr)


def print_json(value: object) -> None:
    """Print ``value``, which holds nothing that JSON does not know."""
    typer.echo(json.dumps(value, indent=2))
