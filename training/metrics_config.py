"""The configuration of what a training run reports."""

from pydantic import Field

from faceloom.config import Section


class MetricsConfig(Section):
    """Where the numbers of a run go besides ``metrics.jsonl`` and the terminal, which always have them."""

    every: int = Field(10, ge=1)
    """Steps between two reports; a report is the mean over them. The last step of a stage always makes one."""
    tensorboard: bool = True
    """Write event files for ``tensorboard --logdir RUN_DIR/tensorboard``."""
    wandb: str | None = None
    """Project at Weights & Biases to report to as well; needs the package ``wandb``, which is not installed by default."""
