"""``faceloom shards``: what they hold, and the same samples in others."""

from typing import Annotated

import typer
from rich.table import Table

from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson, DatasetFolder, NewDataset

group = typer.Typer(
    name="shards",
    help="What a dataset's shards hold, and the same samples in other shards.",
    epilog="Example: faceloom shards stats dataset",
    no_args_is_help=True,
)


@group.command("stats", epilog="Example: faceloom shards stats dataset --json")
def shards_stats(dataset: DatasetFolder, as_json: AsJson = False) -> None:
    """Shards, samples and bytes of a dataset, by layer and by field."""
    from shards.stats import stats

    layers = stats(dataset)
    if as_json:
        print_json([{**vars(layer), "fields": [vars(field) for field in layer.fields]} for layer in layers])
        return
    console = text_console()
    for layer in layers:
        state = "complete" if layer.complete else "unfinished"
        console.print(f"{layer.layer}: {state}, fingerprint {layer.fingerprint[:12]}", highlight=False)
        spread = f"{layer.shard_samples_min} / {layer.shard_samples_median:g} / {layer.shard_samples_max}"
        size = f"{layer.bytes / 1e6:.1f} MB in {layer.shards} of {layer.parts} shards"
        console.print(
            f"  {layer.samples} samples, {size}; samples a shard: {spread} (min / median / max)", soft_wrap=True
        )
        table = Table("  field", box=None, header_style="bold")
        for heading in ("samples", "MB", "mean kB"):
            table.add_column(heading, justify="right")
        for field in layer.fields:
            size, mean = f"{field.bytes / 1e6:.1f}", f"{field.mean_bytes / 1e3:.1f}"
            table.add_row(f"  {field.field}", str(field.samples), size, mean)
        console.print(table)


@group.command(
    "repack", epilog="Example: faceloom shards repack dataset --out frontal --shuffle 0 --where 'yaw_range_deg < 30'"
)
def shards_repack(
    dataset: DatasetFolder,
    out: NewDataset,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Of every shard but the last.")] = 256,
    shuffle: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Permute all samples by this seed; by default they keep their order."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Take only clips for which this condition on the ledger's columns holds."),
    ] = None,
) -> None:
    """Copy a dataset with its complete layers into shards of one size; checks every byte on the way."""
    from shards.repack import repack

    made = repack(dataset, out, samples_per_shard, shuffle, where)
    for name in made.left_out:
        typer.echo(f"left out: layer {name} is not complete", err=True)
    typer.echo(f"{out}: {made.samples} samples in {made.shards} shards; layers: {', '.join(made.layers)}")
