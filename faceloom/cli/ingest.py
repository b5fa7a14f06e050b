"""``faceloom ingest``: one command a dataset."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from curation.adapters.table import DATASETS, FOLDER, Dataset
from faceloom.cli.answers import print_json
from faceloom.cli.options import AsJson
from faceloom.errors import UserError
from faceloom.location import local_path, location


class _Datasets(TyperGroup):
    """Answers a wrong name with those that there are."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            raise UserError(f"no dataset is called {cmd_name!r}; there are: {', '.join(self.commands)}")
        return command


group = typer.Typer(
    name="ingest",
    cls=_Datasets,
    help="List the clips of a dataset: the manifest that `curate` works through.",
    epilog="Example: faceloom ingest demo --root demo-videos --out demo.parquet",
    no_args_is_help=True,
)


def _ingest_command(dataset: Dataset) -> Callable[..., None]:
    root_path = location if dataset is FOLDER else local_path

    def command(
        root: Annotated[Path, typer.Option(metavar="DIR", parser=root_path, help=f"The folder: {dataset.layout}.")],
        out: Annotated[
            Path, typer.Option("--out", metavar="MANIFEST", parser=location, help="Parquet file to write, or its URL.")
        ],
        name: Annotated[
            str | None,
            typer.Option("--dataset", help="Name to record instead of the dataset's own.", show_default=False),
        ] = None,
        licence: Annotated[
            str | None, typer.Option(help=f"Licence to record in every sample, by default: {dataset.licence}.")
        ] = None,
        exclusions: Annotated[
            Path | None, typer.Option(metavar="FILE", help="CSV file to write with all that was left out, and why.")
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        from curation.ingest import ingest

        report = ingest(dataset, root, out, name=name, licence=licence, exclusions=exclusions)
        if as_json:
            print_json(asdict(report))
            return
        typer.echo(f"{out}: {report.clips} clips, {report.duplicates} of them with the bytes of an earlier one")
        if report.ignored:
            counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in report.ignored.items())
            typer.echo(f"passed over, no videos by their names: {counts}")
        for left_out in report.left_out:
            more = f", … {left_out.count} in all" if left_out.count > len(left_out.first) else ""
            typer.echo(f"left out: {', '.join(left_out.first)}{more}: {left_out.reason}", err=True)
        for notice in report.notices:
            typer.echo(f"note: {notice}", err=True)

    return command


for _dataset in DATASETS:
    group.command(
        _dataset.name,
        help=f"{_dataset.summary}\n\nFrom {_dataset.origin}.",
        epilog=f"Example: faceloom ingest {_dataset.name} --root {_dataset.name}-videos --out {_dataset.name}.parquet",
    )(_ingest_command(_dataset))
