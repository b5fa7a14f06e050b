"""``faceloom audit`` and its like: why clips were kept or dropped, and what other thresholds would do."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson, ConfigSource, DatasetFolder, NewDataset, Overrides
from faceloom.errors import UserError
from faceloom.location import local_path, location


class _Audit(TyperGroup):
    """``audit DATASET …`` is short for ``audit page DATASET …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next(iter(args), "-")
        if not first.startswith("-") and first not in self.commands:
            args = ["page", *args]
        return list(super().parse_args(ctx, args))


commands = typer.Typer()
group = typer.Typer(
    name="audit",
    cls=_Audit,
    help="Why clips were kept or dropped, and what other thresholds would do.",
    epilog="Example: faceloom audit dataset --out audit.html",
    no_args_is_help=True,
)


@group.command(
    "page",
    epilog="Example: faceloom audit page dataset --out audit.html   (page may be left out)",
)
def audit_page(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", parser=local_path, help="HTML file to write.")],
) -> None:
    """Write a page, one file, that shows why clips were kept, rejected or failed, and what other thresholds would do.

    It needs no network and no server. Previews of rejected clips are made from their sources, where those are still there.
    """
    from curation.audit_page.page import write_page

    console = text_console()
    with console.status("reading the ledger") as status:
        page = write_page(dataset, out, status.update)
    typer.echo(f"{out}: {page.rows:,} rows, {page.previews} previews, {page.bytes / 1e6:.1f} MB")
    if page.sampled:
        typer.echo(
            f"what it decides again is a sample of {page.packed:,} rows; exact counts: faceloom what-if {dataset}"
        )


@commands.command(
    "calibrate", epilog="Example: faceloom calibrate dataset --statistic head_range_deg --statistic yaw_p95_deg"
)
def calibrate(
    dataset: DatasetFolder,
    statistic: Annotated[
        list[str] | None, typer.Option("--statistic", metavar="NAME", help="A column of the ledger; by default all.")
    ] = None,
    quantile: Annotated[
        float, typer.Option(help="Share that a proposed lower limit leaves out; an upper limit, a tenth of it.")
    ] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Percentiles of every statistic of a dataset's clips, rejected ones too, and thresholds proposed from them."""
    from curation.calibrate import calibrate as calibrate_dataset
    from curation.calibrate_display import calibration_json, calibration_lines

    calibration = calibrate_dataset(dataset, statistic or (), quantile)
    if as_json:
        print_json(calibration_json(calibration))
        return
    for line in calibration_lines(calibration):
        typer.echo(line)


@commands.command(
    "what-if", epilog="Example: faceloom what-if dataset --set motion.max_yaw_deg=35 --set character.min_face_px=80"
)
def what_if(
    dataset: DatasetFolder, source: ConfigSource = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """What other thresholds would have kept, from the ledger alone: nothing is decoded and nothing is written.

    Starts from the dataset's own configuration; --config compares it with another instead.
    """
    from curation.audit_display import what_if_as_json, what_if_tables
    from curation.what_if import what_if_of
    from shards.dataset import DatasetRecord

    result = what_if_of(dataset, source, overrides or ())
    if not DatasetRecord.load(dataset).complete:
        typer.echo(f"note: {dataset} is not finished; this is about the clips decided so far", err=True)
    if as_json:
        print_json({"dataset": str(dataset), **what_if_as_json(result)})
        return
    for part in what_if_tables(result):
        text_console().print(part, highlight=False)


@commands.command("explain", epilog="Example: faceloom explain dataset talking_man.mp4")
def explain(
    dataset: DatasetFolder,
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="Clip id or source key.")],
    as_json: AsJson = False,
) -> None:
    """Tell the whole story of one clip: every rule with its margin, what was measured, the cost, the sample."""
    from curation.audit_display import story_as_json, story_tables
    from curation.explain import explain as story_of

    story = story_of(dataset, clip)
    if as_json:
        print_json(story_as_json(story))
        return
    for part in story_tables(story):
        text_console().print(part, highlight=False)


@group.command(
    "sql",
    epilog="Example: faceloom audit sql dataset \"SELECT source_key, yaw_p95_deg FROM ledger WHERE rule = 'yaw' LIMIT 9\"",
)
def audit_sql(
    dataset: DatasetFolder,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT, in DuckDB's SQL.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", metavar="FILE", parser=location, help="What the dataset was curated from: a further view."
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask the ledger, the shards' index and the telemetry anything; reads, and reaches nothing else.

    Views: ledger, samples (one row a field of a sample), telemetry, manifest. `DESCRIBE ledger` lists its columns.
    """
    from curation.audit_sql import ask

    if as_json and as_csv:
        raise UserError("--json and --csv are two forms of one answer; give one of them")
    answer = ask(dataset, query, manifest)
    if as_json:
        print_json(answer.as_json())
    elif as_csv:
        typer.echo(answer.as_csv(), nl=False)
    else:
        table = Table(box=None, header_style="bold")
        for name in answer.columns:
            table.add_column(Text(name))
        for row in answer.rows:
            table.add_row(*(Text("" if value is None else str(value)) for value in row))
        text_console().print(table)


@group.command(
    "apply", epilog="Example: faceloom audit apply dataset --set motion.max_yaw_deg=35 --out dataset-frontal"
)
def audit_apply(
    dataset: DatasetFolder,
    out: NewDataset,
    source: ConfigSource = None,
    overrides: Overrides = None,
) -> None:
    """Write the dataset that other thresholds keep, and list the clips that only curating again can decide.

    NEW has the samples that are kept still, with their layers, and a ledger that was decided again. DATASET stays as it is.
    """
    from curation.apply import apply

    applied = apply(dataset, out, source, overrides or ())
    console = text_console()
    for name in applied.made.left_out:
        typer.echo(f"left out: layer {name} is not complete", err=True)
    console.print(
        f"{out}: {applied.made.samples} samples in {applied.made.shards} shards; layers: {', '.join(applied.made.layers)}",
        soft_wrap=True,
    )
    again = applied.recompute
    if again is not None:
        console.print(f"{again.manifest}: {again.clips} clips to curate again, with:\n{again.command}", soft_wrap=True)


@commands.command("inspect", epilog="Example: faceloom inspect dataset talking_man.mp4 --out sheets")
def inspect(
    dataset: DatasetFolder,
    clip: Annotated[str | None, typer.Argument(help="Clip id or source key; without it, every kept clip.")] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", parser=local_path, help="Folder for the PNG files.")
    ] = Path("contact-sheets"),
) -> None:
    """Draw contact sheets: frames with landmarks, the flow weight, the aligned face, the statistics."""
    from curation.inspect import write_contact_sheets

    for path in write_contact_sheets(dataset, out, clip):
        typer.echo(path)
