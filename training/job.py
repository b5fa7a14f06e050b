"""One training run, as a person asks for it."""

from dataclasses import dataclass
from pathlib import Path

from training.train_config import TrainConfig


@dataclass(frozen=True)
class Job:
    """What is to be trained, on what, and where it is written."""

    config: TrainConfig
    data: tuple[Path, ...]
    """Folders of datasets with a layer of latents."""
    out: Path
    """Folder of the run; all ranks see it."""
    held_out: Path | None = None
    resume: bool = False
