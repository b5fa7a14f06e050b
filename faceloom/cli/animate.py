"""``faceloom animate`` and ``faceloom app``: a checkpoint at work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from faceloom import config, logs
from faceloom.cli.answers import print_json, text_console
from faceloom.cli.options import AsJson, ConfigSource, LogFile, Overrides, RayAddress
from faceloom.errors import UserError
from faceloom.location import local_path

if TYPE_CHECKING:
    from animation.animate_config import AnimateConfig

commands = typer.Typer()

Checkpoint = Annotated[
    str, typer.Option(metavar="DIR", help="What `faceloom export` wrote, or the release of SkyReels-A1.")
]


@commands.command(
    "animate",
    epilog="Example: faceloom animate --checkpoint model --portrait me.jpg --driving talk.mp4 --out me_talking.mp4   "
    "(or: --batch pairs.csv --out DIR)",
)
def animate(
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", parser=local_path, help="MP4 file to write; with --batch a folder.")
    ],
    portrait: Annotated[
        Path | None, typer.Option(metavar="IMAGE", parser=local_path, help="Picture of the face that is to move.")
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Option(metavar="VIDEO", parser=local_path, help="Video of one person, whose motion and sound it gets."),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIRS.csv",
            parser=local_path,
            help="Many pairs on Ray: a table with the columns portrait, driving, and if wanted name, seed.",
        ),
    ] = None,
    side_by_side: Annotated[
        Path | None,
        typer.Option(
            "--side-by-side", metavar="FILE", parser=local_path, help="Also write portrait | driver | result."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of denoising; more take longer. Default: 10.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="How far the face leads the model; 1 is unguided. Default: 3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise. Default: 0.")] = None,
    fps: Annotated[
        int | None, typer.Option(min=1, help="Frames a second, by default those that the checkpoint was trained at.")
    ] = None,
    stitch: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(help="Animate a window around the face and put it back; auto does it where the face is small."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Default: auto.")] = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep in the GPU's memory only the network that is at work.")
    ] = False,
    tiling: Annotated[bool, typer.Option("--tiling", help="Let the VAE work on tiles, for less memory.")] = False,
    source: ConfigSource = None,
    overrides: Overrides = None,
    address: RayAddress = None,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Animate a portrait by the motion of a driving video; or many, with --batch: then exit 1 if one failed."""
    from animation.animate_config import AnimateConfig

    given: dict[str, Any] = {"steps": steps, "guidance": guidance, "seed": seed, "fps": fps, "portrait.stitch": stitch}
    given |= {"load.device": device, "load.offload": offload or None, "load.tiling": tiling or None}
    flags = [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = config.load(AnimateConfig, source, [*(overrides or ()), *flags])
    if batch is not None:
        if portrait or driving or side_by_side:
            raise UserError("--batch takes its pairs from a table; leave --portrait, --driving and --side-by-side out")
        _animate_batch(checkpoint, batch, out, settings, address, log_file, as_json)
        return
    if portrait is None or driving is None:
        raise UserError("faceloom animate needs --portrait IMAGE and --driving VIDEO, or --batch PAIRS.csv")
    from animation.animate import Pair, prepare
    from animation.animate import animate as animate_pair
    from animation.checkpoint import check_steps, find_checkpoint
    from animation.display import as_dict, as_line, step_display
    from animation.loading import check_device, checkpoint_digest, load_pipeline
    from landmarks.face_reader import FaceReader

    found = find_checkpoint(checkpoint, settings.load.siglip_model)
    check_steps(settings.steps, found.scheduler)
    check_device(settings.load)
    # Progress goes where it is no part of an answer to a program.
    console = text_console(stderr=as_json)
    with (
        FaceReader(settings.landmarks or found.trained_on.backend, "faceloom animate") as reader,
        step_display(console) as report,
    ):
        # Before the model, which takes long to load: a file may be missing or wrong.
        prepared = prepare(Pair(portrait, driving, out, side_by_side), found.trained_on, reader, settings, report)
        for note in prepared.notes:
            console.print(f"note: {note}", highlight=False, soft_wrap=True)
        console.print("loading the model")
        made = animate_pair(prepared, load_pipeline(checkpoint, settings.load), settings, report)
    if as_json:
        print_json(as_dict(made, checkpoint, checkpoint_digest(found.folder)))
    else:
        console.print(as_line(made), highlight=False, soft_wrap=True)


def _animate_batch(
    checkpoint: str,
    table: Path,
    out: Path,
    settings: "AnimateConfig",
    address: str | None,
    log_file: Path | None,
    as_json: bool,
) -> None:
    from animation.batch import BatchRunner, batch_pool_size, plan_batch
    from animation.checkpoint import find_checkpoint
    from animation.display import outcome_lines
    from animation.pairs import read_pairs
    from faceloom.cluster import connect
    from faceloom.progress import progress_display

    console = text_console(stderr=as_json)
    rows = read_pairs(table, settings.seed)
    folder = find_checkpoint(checkpoint, settings.load.siglip_model).folder
    plan = plan_batch(folder, settings, rows, out)
    results = list(plan.done.values())
    if plan.left:
        workers = batch_pool_size(settings, connect(address))
        log = log_file or logs.default_file(out, "animate")
        with logs.log_file(log, command="animate"), progress_display(console, "animating") as report:
            results = BatchRunner(plan, workers, report).run()
    else:
        console.print(f"nothing to do: all {len(rows)} pairs of {table} are animated in {out}", soft_wrap=True)
    if as_json:
        print_json(results)
    else:
        for line in outcome_lines(results, out):
            console.print(line, highlight=False, soft_wrap=True)
    if any(row["outcome"] == "failed" for row in results):
        raise typer.Exit(1)


@commands.command("app", epilog="Example: faceloom app --checkpoint model")
def serve_app(
    checkpoint: Checkpoint,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is reached by everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    source: ConfigSource = None,
    overrides: Overrides = None,
) -> None:
    """Serve a page where a portrait and a driving video are uploaded and the result is shown, until Ctrl-C."""
    import signal
    import time
    from contextlib import suppress

    from animation.animate_config import AnimateConfig
    from animation.app import serving
    from animation.checkpoint import find_checkpoint

    settings = config.load(AnimateConfig, source, overrides or ())
    find_checkpoint(checkpoint, settings.load.siglip_model)
    # So that uploads are removed then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(checkpoint, settings, host, port) as address, suppress(KeyboardInterrupt):
        text_console().print(f"serving at {address} (end with Ctrl-C)", highlight=False)
        while True:
            time.sleep(1)
