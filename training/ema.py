"""A moving average of the trained parameters, for validation and export."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


class Ema:
    """Exponential moving average in float32 of ``parameters``, which are plain tensors or sharded ones (DTensor).

    After update n, counted from 0, the average is d · average + (1 − d) · parameter with d = min(decay, (1 + n) / (10 + n)):
    so a short run's average is not still its first weights (the warm-up of TensorFlow's ``ExponentialMovingAverage``).
    Sharded parameters have sharded averages: no rank holds more, none talks to another. Raises ``ValueError`` for parameters
    that are not float32, whose steps may be lost to rounding before they get here.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        for name, parameter in parameters.items():
            if parameter.dtype != torch.float32:
                raise ValueError(f"the average is of float32 parameters, {name} is {parameter.dtype}")
        self._parameters = dict(parameters)
        self._decay = decay
        self._updates = 0
        self.average = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        """By parameter name; sharded as the parameters are."""

    @property
    def updates(self) -> int:
        """How often it was updated; belongs in a checkpoint beside :attr:`average`."""
        return self._updates

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after an optimizer step."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages = [_local(average) for average in self.average.values()]
        torch._foreach_lerp_(averages, [_local(p) for p in self._parameters.values()], 1 - decay)
        self._updates += 1

    def resume(self, updates: int) -> None:
        """Go on after ``updates`` updates, once :attr:`average` has been loaded in place."""
        self._updates = updates

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Within, ``model``'s parameters are the averages; afterwards they have their own bits again, also after an error."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        # In place and one by one: FSDP keeps views of a parameter's storage, and a second copy of all may not fit.
        for name, parameter in self._parameters.items():
            mine, theirs = _local(self.average[name]), _local(parameter)
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)
        reshard(model)


def reshard(model: nn.Module) -> None:
    """Let FSDP forget the parameters that it has gathered.

    It keeps those of the root after a forward that no backward follows: the model then has whole parameters in place of the
    sharded ones, and goes on with their values when the sharded ones change.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _local(tensor: Tensor) -> Tensor:
    """The part that this rank has of a sharded tensor, or the whole of another; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
