"""Parameters and optimizer state by the names of the bare model, whatever it is wrapped in."""

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, nn

_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module"}


def trainable_state(model: nn.Module, names: AbstractSet[str]) -> dict[str, Tensor]:
    """The parameters of ``model`` called one of ``names`` (:func:`parameter_name`), to save or to load into.

    They are the parameters themselves, shards included: loading into them changes the model. Raises ``KeyError`` for a name
    that it does not have.
    """
    state = {}
    for wrapped, parameter in model.named_parameters():
        if (name := parameter_name(wrapped)) in names:
            state[name] = parameter.data
    if missing := sorted(set(names) - state.keys()):
        raise KeyError(f"the model has no parameters {missing}")
    return state


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The state of ``optimizer`` by parameter name, to save or to load into; rates are configuration, not state.

    ``optimizer`` was made from the parameters that ``model`` has now. If it has not made a step yet, its state is made first,
    as it is before any step: zeros, with which Adam begins.
    """
    names = {parameter: parameter_name(name) for name, parameter in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not optimizer.state:
        _make_state(optimizer, parameters)
    return {
        names[p]: {key: value for key, value in optimizer.state[p].items() if isinstance(value, Tensor)}
        for p in parameters
    }


def parameter_name(wrapped: str) -> str:
    """A parameter's name in the bare model: without what DDP, ``torch.compile`` and checkpoint wrappers add to it."""
    return ".".join(part for part in wrapped.split(".") if part not in _WRAPPERS)


def _make_state(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    # Only a step creates state. With rate 0 it leaves the parameters as they are, and afterwards its traces are wiped.
    rates = [group["lr"] for group in optimizer.param_groups]
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient
        for value in optimizer.state[p].values():
            if isinstance(value, Tensor):
                value.zero_()
