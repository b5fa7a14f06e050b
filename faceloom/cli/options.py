"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from faceloom.location import local_path, location

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
ConfigSource = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="YAML file, or the name of a packaged config such as demo."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the config.")]
RayAddress = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; without it, one starts on this machine.")
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Check everything, say what would be done, and stop.")]
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
NewDataset = Annotated[
    Path, typer.Option("--out", metavar="NEW", parser=local_path, help="Folder of the new dataset; must not exist.")
]
