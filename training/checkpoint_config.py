"""When a training run saves, and how much of it stays on disk."""

from pydantic import Field

from faceloom.config import Section


class CheckpointConfig(Section):
    """What :class:`training.checkpoint.Checkpoints` follows."""

    every: int = Field(200, ge=1)
    """Optimizer steps between two checkpoints."""
    keep: int = Field(3, ge=2)
    """How many of the newest stay. One would leave nothing to go back to when the disk damages it."""
    asynchronous: bool = True
    """Training goes on while a copy in host memory is written. It takes as much host memory as the checkpoint has bytes."""
