"""Weights that the user supplies as PyTorch checkpoints, into the network that they are of."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from faceloom.errors import UserError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_into(module: ModuleT, file: Path, skip: Callable[[str], bool] = lambda _name: False) -> ModuleT:
    """``module`` with the tensors of ``file``, of which those are left out whose names ``skip`` picks.

    No code of the file is run. Raises :class:`UserError` if it is no checkpoint, or has other tensors than the module.
    """
    try:
        tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        module.load_state_dict({name: tensor for name, tensor in tensors.items() if not skip(name)})
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} does not hold the weights of {type(module).__name__} ({reason}); replace it") from None
    return module
