"""``faceloom evaluate``: how good animated portraits are."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from faceloom import config
from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson, ConfigSource, Overrides
from faceloom.errors import CheckFailed, UserError
from faceloom.location import local_path

commands = typer.Typer()


@commands.command(
    "evaluate",
    epilog="Example: faceloom evaluate --results results --references portraits --driving drivers --out evaluation",
)
def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", parser=local_path, help="Folder for tables, summary and page; made if new."
        ),
    ],
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", parser=local_path, help="The videos to measure: NAME.mp4."),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option("--references", metavar="DIR", parser=local_path, help="Their portraits: NAME.png or NAME.jpg."),
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Option("--driving", metavar="DIR", parser=local_path, help="What drove them: NAME.mp4, of any rate."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="DIR",
            parser=local_path,
            help="The true videos, where there are: NAME.mp4; adds metrics.",
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="CSV",
            parser=local_path,
            help="Instead of folders: a table with the columns name, result, reference, driving, truth.",
        ),
    ] = None,
    mode: Annotated[
        Literal["v2", "legacy", "both"],
        typer.Option(help="v2 measures what the paper says, legacy computes what its scripts do."),
    ] = "v2",
    source: ConfigSource = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure animated portraits against their drivers, portraits and, where there is one, the truth.

    Writes metrics.parquet, curves.parquet, summary.json and evaluation.html, which shows the videos with their curves.
    A video that cannot be read is a row with its reason; exit 1 if no video could be measured.
    """
    from evaluation.config import EvaluateConfig
    from evaluation.display import absent_lines, summary_table
    from evaluation.output import write_tables
    from evaluation.page import PAGE_FILE, write_page
    from evaluation.pairs import from_folders, from_table
    from evaluation.run import evaluate as measure
    from shards.storage import make_folder

    settings = config.load(EvaluateConfig, source, overrides or ())
    if pairs is not None:
        if results or references or driving or truth:
            raise UserError("--pairs names all files itself; leave --results, --references, --driving and --truth out")
        found = from_table(pairs)
    elif results and references and driving:
        found = from_folders(results, references, driving, truth)
    else:
        raise UserError("faceloom evaluate needs --results, --references and --driving, or --pairs")
    try:
        make_folder(out.absolute())
    except OSError as error:
        raise UserError(f"cannot make {out}: {error.strerror}; choose another --out") from None

    def say(line: str) -> None:
        typer.echo(line, err=True)

    evaluation = measure(found, ("v2", "legacy") if mode == "both" else (mode,), settings, say)
    told = write_tables(evaluation, settings, out)
    write_page(evaluation, told, settings, out / PAGE_FILE, say)
    if as_json:
        print_json(told)
    else:
        text_console().print(summary_table(told))
        for line in absent_lines(told):
            typer.echo(line)
        typer.echo(f"{out / PAGE_FILE}")
    if len(told["failed"]) == told["videos"]:
        raise CheckFailed(
            f"none of {told['videos']} videos could be measured; the first: {told['failed'][0]['reason']}"
        )
