"""The optimizer of a stage and its learning rate."""

from collections.abc import Iterable

import torch
from torch import nn

from training.train_config import OptimizerConfig, StageConfig


def adamw(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over ``parameters``; its learning rate is set before every step, by :func:`set_learning_rate`."""
    return torch.optim.AdamW(
        list(parameters),
        lr=0.0,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def learning_rate(stage: StageConfig, step: int) -> float:
    """The rate of a stage's step (from 0): linear up to ``lr`` over ``warmup_steps``, constant, linear down at the end."""
    rising = (step + 1) / (stage.warmup_steps + 1)
    falling = (stage.steps - step) / max(1.0, stage.decay_share * stage.steps)
    return stage.lr * min(1.0, rising, falling)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` for all parameters from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
