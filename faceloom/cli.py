"""The command ``faceloom``: every command's arguments, and nothing of its work.

Heavy packages (torch, ray, mediapipe) are imported inside the commands that need them, so that ``--help`` answers at
once. Exit codes: 0 success, 1 a check did not pass, 2 wrong use or bad input.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import faceloom
from curation.adapters.table import DATASETS, DEMO, FOLDER, Dataset
from faceloom import config, logs, models
from faceloom.errors import CheckFailed, UserError
from faceloom.location import local_path, location
from faceloom.storage_errors import is_of_storage, reason, remedy
from faceloom.terminal import PlainConsole
from faceloom.transfers import attempts

if TYPE_CHECKING:
    from animation.animate_config import AnimateConfig

app = typer.Typer(
    help="Raw footage of people into training data for portrait-animation video models.",
    epilog="Example: faceloom models fetch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="The models and demo videos that runs use: what they are, how to get them.", no_args_is_help=True
)
app.add_typer(models_app, name="models", epilog="Example: faceloom models list")


class _Datasets(TyperGroup):
    """Answers a wrong name with those that there are."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            raise UserError(f"no dataset is called {cmd_name!r}; there are: {', '.join(self.commands)}")
        return command


ingest_app = typer.Typer(
    cls=_Datasets,
    help="List the clips of a dataset: the manifest that `curate` works through.",
    no_args_is_help=True,
)
app.add_typer(ingest_app, name="ingest", epilog="Example: faceloom ingest demo --root demo-videos --out demo.parquet")

landmarks_app = typer.Typer(help="Videos of landmarks, to look at.", no_args_is_help=True)
app.add_typer(
    landmarks_app, name="landmarks", epilog="Example: faceloom landmarks render dataset talking_man.mp4 --out man.mp4"
)

shards_app = typer.Typer(
    help="What a dataset's shards hold, and the same samples in other shards.", no_args_is_help=True
)
app.add_typer(shards_app, name="shards", epilog="Example: faceloom shards stats dataset")


class _Audit(typer.core.TyperGroup):
    """``audit DATASET …`` is short for ``audit page DATASET …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next(iter(args), "-")
        if not first.startswith("-") and first not in self.commands:
            args = ["page", *args]
        return list(super().parse_args(ctx, args))


audit_app = typer.Typer(
    cls=_Audit, help="Why clips were kept or dropped, and what other thresholds would do.", no_args_is_help=True
)
app.add_typer(
    audit_app,
    name="audit",
    epilog="Example: faceloom audit dataset --out audit.html",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
ModelNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", show_default=False, help="As `faceloom models list` names them.")
]


ConfigSource = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="YAML file, or the name of a packaged config such as demo."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the config.")]
RayAddress = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; without it, one starts on this machine.")
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        parser=local_path,
        help="JSON lines of failures, lost workers, retries; by default in the dataset's folder telemetry, if it is local.",
        show_default=False,
    ),
]
DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", parser=location, help="The folder or URL that `faceloom curate` wrote to.")
]
VideoOut = Annotated[Path, typer.Option("--out", metavar="FILE", parser=local_path, help="MP4 file to write.")]
DrawingStyle = Annotated[str, typer.Option("--style", help="a1_3d, a1_2d or fye: whose inference code it looks like.")]
Smoothed = Annotated[bool, typer.Option("--smooth", help="Take jitter out of the landmarks; also softens blinks.")]


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


def _console() -> Console:
    """Standard output, with brackets and colons in file names left as they are."""
    return PlainConsole(markup=False, emoji=False)


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


@models_app.command("list", epilog="Example: faceloom models list --json")
def models_list(as_json: AsJson = False) -> None:
    """List every model and demo file; --json also gives source, sha256 and path of each."""
    local = [models.locate(name) for name in models.files()]
    supplied = {row: models.locate_user_file(name) for name, row in models.user_files().items()}
    hub = models.hub_models().values()
    if as_json:
        of_user = [_user_file_as_dict(row, path) for row, path in supplied.items()]
        _print_json([_as_dict(state) for state in local] + of_user + [vars(model) for model in hub])
        return
    table = Table("name", "state", "MB", "licence", "what it is", box=None, header_style="bold")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for state in local:
        row = state.model
        table.add_row(row.name, _state(state), f"{row.size_bytes / 1e6:.1f}", row.licence, row.note)
    for user_file, path in supplied.items():
        size = f"{path.stat().st_size / 1e6:.1f}" if path else ""
        table.add_row(user_file.name, _user_state(path), size, user_file.licence, user_file.note)
    for model in hub:
        table.add_row(model.name, "from hub", "", model.licence, f"{model.hub_id}: {model.note}")
    console = _console()
    console.print(table)
    console.print(
        "What you supply yourself has no pinned sha256 and is taken as it is. --json tells where from and where to."
    )


@models_app.command("fetch", epilog="Example: faceloom models fetch --for demo")
def models_fetch(
    names: ModelNames = None,
    for_config: Annotated[
        str | None, typer.Option("--for", metavar="CONFIG", help="Fetch what this curation config asks for.")
    ] = None,
) -> None:
    """Fetch files into the cache: those named, those a config asks for, or else all. What is there stays."""
    wanted = [*(names or []), *(_models_of(for_config) if for_config else [])]
    for name, path in models.fetch(wanted or models.files(), typer.echo).items():
        typer.echo(f"{name}: {path}")


@models_app.command("verify", epilog="Example: faceloom models verify raft-large")
def models_verify(names: ModelNames = None, as_json: AsJson = False) -> None:
    """Hash the files again. Exits 1 if one is not the pinned one, or if a file that was named is missing."""
    states = models.verify(names or None)
    if as_json:
        _print_json([_as_dict(state) for state in states])
    else:
        for state in states:
            typer.echo(f"{_state(state)}: {state.model.name}" + (f"  {state.path}" if state.path else ""))
    bad = [state for state in states if not state.usable and (names or state.path)]
    if bad:
        listed = ", ".join(f"{state.model.name} ({_state(state)})" for state in bad)
        command = " ".join(["faceloom models fetch", *(state.model.name for state in bad)])
        raise CheckFailed(f"{listed}; get it right with: {command}")


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
            _print_json(asdict(report))
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
    ingest_app.command(
        _dataset.name,
        help=f"{_dataset.summary}\n\nFrom {_dataset.origin}.",
        epilog=f"Example: faceloom ingest {_dataset.name} --root {_dataset.name}-videos --out {_dataset.name}.parquet",
    )(_ingest_command(_dataset))


@app.command("curate", epilog="Example: faceloom curate --config demo --manifest demo.parquet --out dataset")
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
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, say what would be done, and stop.")] = False,
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

    console = _console()
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


@app.command("encode", epilog="Example: faceloom encode dataset --set codec.codec=pixels")
def encode(
    dataset: DatasetFolder,
    source: ConfigSource = None,
    overrides: Overrides = None,
    layer: Annotated[
        str, typer.Option("--layer", help="Name of the layer: latents, or latents-NAME for another beside it.")
    ] = "latents",
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, say what would be done, and stop.")] = False,
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

    console = _console()
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


@app.command(
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

        _console().print(plan_text(plan_of(settings, gpus, gpu)))
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


@app.command(
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


@app.command("verify", epilog="Example: faceloom verify dataset")
def verify(dataset: DatasetFolder, as_json: AsJson = False) -> None:
    """Recompute every checksum, shape and position of a dataset; exit 1 naming whatever differs."""
    from shards.verify import verify as problems_of

    problems = problems_of(dataset)
    if as_json:
        _print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            _console().print(str(problem), highlight=False, soft_wrap=True)
    if problems:
        raise CheckFailed(f"{dataset}: {len(problems)} problems")
    if not as_json:
        _console().print(f"{dataset}: every file is as it was written")


@app.command("status", epilog="Example: faceloom status dataset --clips")
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
        _print_json(found.as_json())
        return
    console = _console()
    for line in found.lines():
        console.print(line, highlight=False, soft_wrap=True)
    if found.blocks:
        console.print(outcome_table(found.ledger))
    if clips:
        print_clips(read_ledger(dataset), console)


@audit_app.command(
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

    console = _console()
    with console.status("reading the ledger") as status:
        page = write_page(dataset, out, status.update)
    typer.echo(f"{out}: {page.rows:,} rows, {page.previews} previews, {page.bytes / 1e6:.1f} MB")
    if page.sampled:
        typer.echo(
            f"what it decides again is a sample of {page.packed:,} rows; exact counts: faceloom what-if {dataset}"
        )


@app.command(
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
        _print_json(calibration_json(calibration))
        return
    for line in calibration_lines(calibration):
        typer.echo(line)


@app.command(
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
        _print_json({"dataset": str(dataset), **what_if_as_json(result)})
        return
    for part in what_if_tables(result):
        _console().print(part, highlight=False)


@app.command("explain", epilog="Example: faceloom explain dataset talking_man.mp4")
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
        _print_json(story_as_json(story))
        return
    for part in story_tables(story):
        _console().print(part, highlight=False)


@audit_app.command(
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
        _print_json(answer.as_json())
    elif as_csv:
        typer.echo(answer.as_csv(), nl=False)
    else:
        table = Table(box=None, header_style="bold")
        for name in answer.columns:
            table.add_column(Text(name))
        for row in answer.rows:
            table.add_row(*(Text("" if value is None else str(value)) for value in row))
        _console().print(table)


@audit_app.command(
    "apply", epilog="Example: faceloom audit apply dataset --set motion.max_yaw_deg=35 --out dataset-frontal"
)
def audit_apply(
    dataset: DatasetFolder,
    out: Annotated[
        Path, typer.Option("--out", metavar="NEW", parser=local_path, help="Folder of the new dataset; must not exist.")
    ],
    source: ConfigSource = None,
    overrides: Overrides = None,
) -> None:
    """Write the dataset that other thresholds keep, and list the clips that only curating again can decide.

    NEW has the samples that are kept still, with their layers, and a ledger that was decided again. DATASET stays as it is.
    """
    from curation.apply import apply

    applied = apply(dataset, out, source, overrides or ())
    console = _console()
    for name in applied.made.left_out:
        typer.echo(f"left out: layer {name} is not complete", err=True)
    console.print(
        f"{out}: {applied.made.samples} samples in {applied.made.shards} shards; layers: {', '.join(applied.made.layers)}",
        soft_wrap=True,
    )
    again = applied.recompute
    if again is not None:
        console.print(f"{again.manifest}: {again.clips} clips to curate again, with:\n{again.command}", soft_wrap=True)


@app.command("inspect", epilog="Example: faceloom inspect dataset talking_man.mp4 --out sheets")
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


@landmarks_app.command(
    "render", epilog="Example: faceloom landmarks render dataset talking_man.mp4 --out talking_man.mp4"
)
def landmarks_render(
    dataset: DatasetFolder,
    clip: Annotated[str, typer.Argument(help="Clip id or source key of a kept clip.")],
    out: VideoOut,
    mode: Annotated[
        Literal["self", "relative", "cross"],
        typer.Option(help="The clip's own face; its motion on one of its frames; its motion on another clip's face."),
    ] = "self",
    reference: Annotated[
        str | None,
        typer.Option(metavar="FRAME|CLIP", help="relative: a frame's number; cross: another clip's id or source key."),
    ] = None,
    style: DrawingStyle = "a1_3d",
    smoothed: Smoothed = False,
) -> None:
    """Draw a sample's landmarks beside its frames."""
    from curation.landmark_videos import render_clip

    render_clip(dataset, clip, out, mode, reference, style, smoothed)
    typer.echo(out)


@landmarks_app.command(
    "retarget", epilog="Example: faceloom landmarks retarget --portrait me.jpg --driving talk.mp4 --out me_talking.mp4"
)
def landmarks_retarget(
    portrait: Annotated[Path, typer.Option(help="Image of the face that is to move.")],
    driving: Annotated[Path, typer.Option(help="Video of one person, whose motion it is; sampled at 12 fps.")],
    out: VideoOut,
    style: DrawingStyle = "a1_3d",
    smoothed: Smoothed = False,
    backend: Annotated[
        Literal["mediapipe", "smirk"], typer.Option(help="smirk needs files that you supply: `faceloom models list`.")
    ] = "mediapipe",
) -> None:
    """Draw the landmarks of a portrait moving as the person in a video does."""
    from curation.landmark_videos import retarget

    retarget(portrait, driving, out, style, smoothed, backend, typer.echo)
    typer.echo(out)


@shards_app.command("stats", epilog="Example: faceloom shards stats dataset --json")
def shards_stats(dataset: DatasetFolder, as_json: AsJson = False) -> None:
    """Shards, samples and bytes of a dataset, by layer and by field."""
    from shards.stats import stats

    layers = stats(dataset)
    if as_json:
        _print_json([{**vars(layer), "fields": [vars(field) for field in layer.fields]} for layer in layers])
        return
    console = _console()
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


@shards_app.command(
    "repack", epilog="Example: faceloom shards repack dataset --out frontal --shuffle 0 --where 'yaw_range_deg < 30'"
)
def shards_repack(
    dataset: DatasetFolder,
    out: Annotated[
        Path, typer.Option("--out", metavar="NEW", parser=local_path, help="Folder of the new dataset; must not exist.")
    ],
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


@app.command(
    "animate",
    epilog="Example: faceloom animate --checkpoint model --portrait me.jpg --driving talk.mp4 --out me_talking.mp4   "
    "(or: --batch pairs.csv --out DIR)",
)
def animate(
    checkpoint: Annotated[
        str,
        typer.Option(metavar="DIR", help="What `faceloom export` wrote, or the release of SkyReels-A1."),
    ],
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
    """Animate a portrait by the motion of a driving video; or many, with --batch."""
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
    from animation.checkpoint import find_checkpoint
    from animation.display import as_dict, as_line, step_display
    from animation.loading import checkpoint_digest, load_pipeline
    from landmarks.face_reader import FaceReader

    pipeline = load_pipeline(checkpoint, settings.load)
    # Progress goes where it is no part of an answer to a program.
    console = PlainConsole(markup=False, emoji=False, stderr=as_json)
    with (
        FaceReader(settings.landmarks or pipeline.trained_on.backend, "faceloom animate") as reader,
        step_display(console) as report,
    ):
        prepared = prepare(Pair(portrait, driving, out, side_by_side), pipeline, reader, settings, report)
        for note in prepared.notes:
            console.print(f"note: {note}", highlight=False, soft_wrap=True)
        made = animate_pair(prepared, pipeline, settings, report)
    if as_json:
        digest = checkpoint_digest(find_checkpoint(checkpoint, settings.load.siglip_model).folder)
        _print_json(as_dict(made, checkpoint, digest))
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

    console = PlainConsole(markup=False, emoji=False, stderr=as_json)
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
        _print_json(results)
        return
    for line in outcome_lines(results, out):
        console.print(line, highlight=False, soft_wrap=True)


@app.command("app", epilog="Example: faceloom app --checkpoint model")
def serve_app(
    checkpoint: Annotated[
        str, typer.Option(metavar="DIR", help="What `faceloom export` wrote, or the release of SkyReels-A1.")
    ],
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
        _console().print(f"serving at {address} (end with Ctrl-C)", highlight=False)
        while True:
            time.sleep(1)


@app.command(
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
        _print_json(told)
    else:
        _console().print(summary_table(told))
        for line in absent_lines(told):
            typer.echo(line)
        typer.echo(f"{out / PAGE_FILE}")
    if len(told["failed"]) == told["videos"]:
        raise CheckFailed(
            f"none of {told['videos']} videos could be measured; the first: {told['failed'][0]['reason']}"
        )


@app.command("demo", epilog="Example: faceloom demo --out demo --set train.stages.base.steps=3000")
def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder for videos, manifest, datasets, audit page, contact sheets, landmark videos, run, animated videos.",
        ),
    ] = Path("demo"),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PART.A.B=C", help="Override one key of the config demo."),
    ] = None,
) -> None:
    """Run the whole chain on four small real videos and what is made of them (CPU, some ten minutes)."""
    from animation.animate_config import AnimateConfig
    from animation.demo import animate_held_out, not_reached
    from animation.demo_display import results_table
    from curation.demo import held_out_keys, landmark_videos, unexpected
    from curation.display import print_clips
    from curation.ingest import ingest
    from curation.inspect import write_contact_sheets
    from curation.ledger import read_ledger
    from training.demo import split
    from training.demo import unexpected as unlearned

    of = config.by_part(overrides or ())
    console = _console()
    models.fetch(_models_of("demo") + [name for name in models.files() if name.startswith("demo/")], console.print)
    manifest, dataset, sheets = out / "manifest.parquet", out / "dataset", out / "contact-sheets"
    ingest(DEMO, out / "videos", manifest)
    curate(manifest=manifest, out=dataset, source="demo", overrides=of["curate"])
    verify(dataset)
    ledger = read_ledger(dataset)
    page = out / "audit.html"
    audit_page(dataset, page)
    written = [page, *write_contact_sheets(dataset, sheets), *landmark_videos(dataset, out / "landmarks")]
    print_clips(ledger, console)

    encode(dataset=dataset, source="demo", overrides=of["encode"])
    training, held_out, run = out / "training", out / "held-out", out / "run"
    split(dataset, training, held_out, held_out_keys())
    train(data=[training], out=run, source="demo", overrides=of["train"], held_out=held_out, resume=run.exists())
    written += sorted((run / "validation").glob("*/*.mp4"))

    animated = out / "animated"
    settings = config.load(AnimateConfig, "demo", of["animate"])
    results = animate_held_out(run, dataset, held_out_keys(), animated, settings)
    console.print(results_table(results))
    written += [*sorted(animated.glob("*.side-by-side.mp4")), animated / "sheet.jpg", animated / "summary.json"]

    console.print("look at:")
    for path in [*written, dataset / "shards", dataset / "ledger", out / "videos", run / "metrics.jsonl"]:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    for line in not_reached(results):
        console.print(f"not reached: {line}", soft_wrap=True)
    surprises = unexpected(ledger.to_pylist()) + unlearned(run)
    if surprises:
        raise CheckFailed("the demo came out otherwise than it was made for:\n" + "\n".join(surprises))


def _models_of(source: str) -> list[str]:
    from curation.config import CurationConfig

    return ["face_landmarker", config.load(CurationConfig, source).flow.model]


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _state(local: models.LocalFile) -> str:
    if local.path is None:
        return "not fetched"
    return "ready" if local.usable else "wrong file"


def _user_state(path: Path | None) -> str:
    return "ready" if path else "supply it yourself"


def _user_file_as_dict(row: models.UserFile, path: Path | None) -> dict[str, Any]:
    return {
        **vars(row),
        "state": _user_state(path),
        "path": str(path) if path else None,
        "put_at": str(row.put_at),
    }


def _as_dict(local: models.LocalFile) -> dict[str, Any]:
    return {
        **vars(local.model),
        "state": _state(local),
        "path": str(local.path) if local.path else None,
        "found_sha256": local.sha256,
    }
