"""Where a run stands, in the numbers that a checkpoint keeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Place:
    """What has been done: with the seed and the data plan, all that the rest of a run depends on besides the weights."""

    stage: int = 0
    """Index of the stage that is under way."""
    stage_step: int = 0
    """Optimizer steps done in it."""
    step: int = 0
    """Optimizer steps done in the run."""
    consumed: int = 0
    """Positions of the data plan that have been read."""

    def after_step(self, samples: int) -> Self:
        """One optimizer step of ``samples`` samples later."""
        return replace(self, stage_step=self.stage_step + 1, step=self.step + 1, consumed=self.consumed + samples)

    def next_stage(self) -> Self:
        """At the beginning of the next stage. Its samples go on where those of this one end."""
        return replace(self, stage=self.stage + 1, stage_step=0)

    def facts(self) -> dict[str, int]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`facts`."""
        return cls(**{name: int(facts[name]) for name in cls.__dataclass_fields__})
