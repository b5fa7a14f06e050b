"""How a training run is spread over processes; which strategy a stage takes is the stage's own to say."""

from pydantic import Field

from faceloom.config import Section


class ParallelConfig(Section):
    """The processes of a run and what each of them may save memory or time by."""

    replicas: int = Field(1, ge=1)
    """Only for stages of strategy ``fsdp``: how many groups of ranks hold a whole model each. 1 spreads one model over
    all ranks; the number of nodes keeps the traffic of the shards inside a node (HSDP)."""
    activation_checkpointing: bool = True
    """Keep only the inputs of each block for the backward pass and compute the rest again: a third more time, a
    fraction of the memory."""
    compile: bool = False
    """``torch.compile`` each block: minutes at the first step, faster ones after it."""
    init_timeout_s: float = Field(300.0, gt=0)
    """How long the ranks wait for each other at the start, in seconds."""
    step_timeout_s: float = Field(600.0, gt=0)
    """How long a rank may go without finishing a micro-batch before the run is ended and the rank named, in seconds."""
