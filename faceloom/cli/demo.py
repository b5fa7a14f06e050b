"""``faceloom demo``: the commands of the whole chain, one after the other."""

from pathlib import Path
from typing import Annotated

import typer

from curation.adapters.table import DEMO
from faceloom import config, models
from faceloom.cli.answers import text_console
from faceloom.cli.audit import audit_page
from faceloom.cli.dataset import verify
from faceloom.cli.models import models_of
from faceloom.cli.runs import curate, encode
from faceloom.cli.train import train
from faceloom.errors import CheckFailed

commands = typer.Typer()


@commands.command("demo", epilog="Example: faceloom demo --out demo --set train.stages.base.steps=6000")
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
    from curation.config import CurationConfig
    from curation.demo import held_out_keys, landmark_videos, unexpected
    from curation.display import print_clips
    from curation.ingest import ingest
    from curation.inspect import write_contact_sheets
    from curation.ledger import read_ledger
    from training.demo import split
    from training.demo import unexpected as unlearned
    from training.encode_config import EncodeConfig
    from training.train_config import TrainConfig

    of = config.by_part(overrides or ())
    settings = config.load(AnimateConfig, "demo", of["animate"])
    # Each command loads its own; a key that is misspelt is told before the first begins.
    for part, kind in (("curate", CurationConfig), ("encode", EncodeConfig), ("train", TrainConfig)):
        config.load(kind, "demo", of[part])
    console = text_console()
    models.fetch(models_of("demo") + [name for name in models.files() if name.startswith("demo/")], console.print)
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
