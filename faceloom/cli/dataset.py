"""``faceloom verify`` and ``faceloom status``: whether a dataset is whole, and how far its run is."""

from typing import Annotated

import typer

from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson, DatasetFolder
from faceloom.errors import CheckFailed

commands = typer.Typer()


@commands.command("verify", epilog="Example: faceloom verify dataset")
def verify(dataset: DatasetFolder, as_json: AsJson = False) -> None:
    """Recompute every checksum, shape and position of a dataset; exit 1 naming whatever differs."""
    from shards.verify import verify as problems_of

    problems = problems_of(dataset)
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            text_console().print(str(problem), highlight=False, soft_wrap=True)
    if problems:
        raise CheckFailed(f"{dataset}: {len(problems)} problems")
    if not as_json:
        text_console().print(f"{dataset}: every file is as it was written")


@commands.command("status", epilog="Example: faceloom status dataset --clips")
def status(
    dataset: DatasetFolder,
    clips: Annotated[bool, typer.Option("--clips", help="List every clip with its outcome.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a run is, from its files: whether a driver is at work and on what, and how many clips met which outcome."""
    from curation.display import outcome_table, print_clips
    from curation.ledger import read_ledger
    from curation.status import status_of

    found = status_of(dataset)
    if as_json:
        print_json(found.as_json())
        return
    console = text_console()
    for line in found.lines():
        console.print(line, highlight=False, soft_wrap=True)
    if found.blocks:
        console.print(outcome_table(found.ledger))
    if clips:
        print_clips(read_ledger(dataset), console)
