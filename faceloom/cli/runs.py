"""``faceloom curate`` and ``faceloom encode``: the Ray runs that a dataset is made by."""

from pathlib import Path
from typing import Annotated

import typer

from faceloom import config, logs
from faceloom.cli.answers import text_console
from faceloom.cli.options import ConfigSource, DatasetFolder, LogFile, Overrides, PlanOnly, RayAddress
from faceloom.location import location
from faceloom.transfers import attempts

commands = typer.Typer()


@commands.command("curate", epilog="Example: faceloom curate --config demo --manifest demo.parquet --out dataset")
def curate(
    manifest: Annotated[
        Path,
        typer.Option("--manifest", metavar="FILE", parser=location, help="What `faceloom ingest` wrote, or its URL."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=location,
            help="Folder or URL of the dataset; an unfinished one is gone on with.",
        ),
    ],
    source: ConfigSource = None,
    overrides: Overrides = None,
    plan: PlanOnly = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Decide only the first N clips of the manifest.")] = None,
    all_statistics: Annotated[
        bool, typer.Option("--all-statistics", help="Measure on after the first rule that fails (for audits).")
    ] = False,
    address: RayAddress = None,
    log_file: LogFile = None,
) -> None:
    """Decide every clip of a manifest and write the kept ones as verified WebDataset shards."""
    from curation.config import CurationConfig
    from curation.display import outcome_table, plan_table
    from curation.ledger import read_ledger
    from curation.preflight import advice, pool_sizes, prepare
    from curation.run import Runner
    from faceloom.cluster import connect
    from faceloom.progress import progress_display

    console = text_console()
    settings = config.load(CurationConfig, source, overrides or ())
    with attempts(settings.storage):
        prepared = prepare(settings, manifest, out, limit, all_statistics)
        if prepared.finished and not plan:
            console.print(
                f"nothing to do: all {prepared.record.manifest.clips} clips of {manifest} are decided in {out}"
            )
        else:
            resources = connect(address)
            sizes = pool_sizes(settings.run, resources)
            for note in advice(settings, resources):
                console.print(f"note: {note}", soft_wrap=True)
            if plan:
                console.print(plan_table(prepared, resources, sizes))
                return
            log = log_file or logs.default_file(out, "curate")
            with logs.log_file(log, command="curate"), progress_display(console, "curating") as report:
                Runner(prepared, sizes, report).run()
        console.print(outcome_table(read_ledger(out, ["of_clip", "outcome", "rule", "error"])))


@commands.command("encode", epilog="Example: faceloom encode dataset --set codec.codec=pixels")
def encode(
    dataset: DatasetFolder,
    source: ConfigSource = None,
    overrides: Overrides = None,
    layer: Annotated[
        str, typer.Option("--layer", help="Name of the layer: latents, or latents-NAME for another beside it.")
    ] = "latents",
    plan: PlanOnly = False,
    address: RayAddress = None,
    log_file: LogFile = None,
) -> None:
    """Encode a dataset's videos, landmark drawings and reference frames into a layer of latents."""
    from faceloom.cluster import connect
    from faceloom.progress import progress_display
    from training.encode import EncodeRunner
    from training.encode_config import EncodeConfig
    from training.encode_display import outcome_lines, plan_table
    from training.encode_ledger import read_outcomes
    from training.encode_plan import pool_size, prepare

    console = text_console()
    prepared = prepare(config.load(EncodeConfig, source, overrides or ()), dataset, layer)
    if prepared.finished and not plan:
        console.print(f"nothing to do: layer {layer} of {dataset} is complete", highlight=False, soft_wrap=True)
    else:
        resources = connect(address)
        workers = pool_size(prepared.config.run, resources)
        if plan:
            console.print(plan_table(prepared, resources, workers))
            return
        log = log_file or logs.default_file(dataset, f"encode.{layer}")
        with logs.log_file(log, command="encode", layer=layer), progress_display(console, "encoding") as report:
            EncodeRunner(prepared, workers, report).run()
    for line in outcome_lines(prepared, read_outcomes(dataset, layer, len(prepared.parts))):
        console.print(line, highlight=False, soft_wrap=True)
