"""``faceloom train`` and ``faceloom export``: a model from a dataset, and the model as others load it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from faceloom import config
from faceloom.cli.answers import text_console
from faceloom.cli.options import ConfigSource, Overrides, RayAddress
from faceloom.errors import UserError
from faceloom.location import local_path, location

commands = typer.Typer()


@commands.command(
    "train",
    epilog="Example: faceloom train --data dataset --held-out held-out --out run   (or: torchrun … -m training …)",
)
def train(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="DATASET",
            parser=location,
            help="A dataset with latents; several are mixed by their sizes.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", parser=local_path, help="Folder of the run.")
    ] = None,
    source: ConfigSource = "skyreels_a1",
    overrides: Overrides = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out", metavar="DATASET", parser=location, help="Not trained on; measures losses and makes videos."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print parameters, memory, operations and hours; load and train nothing.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="With --plan: how many GPUs.")] = 1,
    gpu: Annotated[str, typer.Option(help="With --plan: their kind, e.g. A800 or H100.")] = "A800",
    on_ray: Annotated[bool, typer.Option("--ray", help="Spread the run over a Ray cluster with Ray Train.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --ray: ranks; by default one for each GPU of the cluster, or 1.")
    ] = None,
    address: RayAddress = None,
) -> None:
    """Train the portrait model on datasets with latents, stage after stage, in this process or with many.

    Started by torchrun, each process is one rank. A signal (SIGTERM, Ctrl-C) saves and ends the run, with exit code 143.
    """
    from training.train_config import TrainConfig

    settings = config.load(TrainConfig, source, overrides or ())
    if plan:
        from training.plan_display import plan_text
        from training.train_plan import plan as plan_of

        text_console().print(plan_text(plan_of(settings, gpus, gpu)))
        return
    if not data or out is None:
        raise UserError("faceloom train needs --data DATASET and --out RUN (only --plan does without)")
    from training.job import Job

    job = Job(settings, tuple(data), out, held_out, resume)
    if on_ray:
        from training.ray_launch import launch

        complete = launch(job, address, workers)
    else:
        from training.train import train as train_here

        complete = train_here(job)
    if not complete:
        raise typer.Exit(143)


@commands.command(
    "export", epilog="Example: faceloom export run/checkpoints/step-00005000 --layout release --out model --verify"
)
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of a run: RUN/checkpoints/step-N.")],
    layout: Annotated[
        Literal["release", "diffusers"],
        typer.Option(help="What SkyReels-A1's code loads, or stock diffusers' transformer with the rest beside it."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", parser=local_path, help="Folder to write; must not exist, or be empty."),
    ],
    ema: Annotated[bool, typer.Option("--ema", help="The moving average of the trained weights.")] = False,
    verified: Annotated[
        bool, typer.Option("--verify", help="Read it back and compare before it gets its name.")
    ] = False,
) -> None:
    """Write a run's model as a folder that other programs load, and that `model.init` takes."""
    from training.export import export as write_export

    made = write_export(checkpoint, layout, out, ema=ema, verify=verified)
    typer.echo(f"{out}: step {made.step}, {made.parameters} parameters, {made.trained} of them trained by this run")
    for line in (*made.notes, *([f"verified: {made.verified}"] if made.verified else [])):
        typer.echo(line)
