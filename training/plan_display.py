"""The plan of a training run, as ``faceloom train --plan`` prints it."""

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.train_plan import StagePlan, TrainPlan

_GIB = 2**30


def plan_text(plan: TrainPlan) -> Group:
    """A table with a column a stage; below it what it all comes to, and how the estimates were made."""
    return Group(_table(plan), *map(Text, _lines(plan)))


def _table(plan: TrainPlan) -> Table:
    table = Table("", title="plan", title_justify="left", header_style="bold")
    for stage in plan.stages:
        table.add_column(stage.name, justify="right")

    def row(name: str, *cells: str) -> None:
        table.add_row(Text(name), *map(Text, cells))

    stages = plan.stages
    config = plan.config
    row("steps", *(f"{stage.steps}" for stage in stages))
    row("strategy", *(stage.strategy.upper() for stage in stages))
    row("parameters", *(_count(stage.parameters) for stage in stages))
    row("trained", *(_count(stage.trained) for stage in stages))
    row("tokens a sample", *(f"{stage.tokens}" for stage in stages))
    row("PFLOP a sample", *(f"{stage.sample_flops / 1e15:.3g}" for stage in stages))
    row("and computed again", *(f"{stage.recomputed_flops / 1e15:.3g}" for stage in stages))
    row("PFLOP a step", *(f"{stage.step_flops / 1e15:,.0f}" for stage in stages))
    if plan.days is not None:
        row("seconds a step", *(f"{stage.step_s or 0:.3g}" for stage in stages))
        row("hours", *(f"{stage.hours or 0:.3g}" for stage in stages))
    table.add_section()
    items = dict.fromkeys(item for stage in stages for item in stage.memory)
    for item in sorted(items, key=lambda item: item.startswith("activations")):
        row(f"GiB: {item}", *(_gib(stage, item) for stage in stages))
    row("GiB on each GPU", *(f"{stage.memory_total / _GIB:.1f}" for stage in stages))
    other = "without" if config.parallel.activation_checkpointing else "with"
    row(f"{other} checkpointing", *(f"{stage.memory_otherwise / _GIB:.1f}" for stage in stages))
    return table


def _lines(plan: TrainPlan) -> Iterator[str]:
    config, machines = plan.config, plan.machines
    turns = config.batch.size // (config.batch.micro * machines.gpus)
    yield f"{config.batch.size} samples a step: {machines.gpus} GPUs × {config.batch.micro} at a time × {turns} times"
    if plan.days is None:
        yield f"no peak is known for {config.dtype} on {machines.kind}, so no time is given; --gpu names another kind"
    else:
        yield (
            f"{plan.days:.1f} days on {machines.gpus} × {machines.kind}, at {machines.utilisation:.0%} of their "
            f"{(machines.peak or 0) / 1e12:g} TFLOP/s: a guess, until a run's own MFU replaces it; "
            "without start, validation and checkpoints"
        )
    yield (
        "memory: weights, gradients and optimizer are counted; activations are what autograd keeps of a micro-batch in this "
        "model on torch's meta device, with fused attention, at the moment of the most; "
        "CUDA itself, gaps between tensors and validation videos come on top"
    )


def _gib(stage: StagePlan, item: str) -> str:
    return f"{stage.memory[item] / _GIB:.2f}" if item in stage.memory else ""


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3f} {unit}"
    return f"{number / 1e6:.3f} M"
