"""The memory that training takes on a GPU, item by item, from the model's structure alone."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FP32 = 4


@dataclass(frozen=True)
class Activations:
    """Bytes that the backward pass needs of the forward pass."""

    kept: int
    """If all is kept."""
    checkpointed: int
    """If of each block only its input is kept, and all of the block that is worked on."""


def transformer_activations(model: nn.Module, blocks: nn.ModuleList, forward: Callable[[], Tensor]) -> Activations:
    """What autograd keeps of ``forward()``, which calls ``model`` on the meta device; parameters are not counted.

    What is kept depends on what is trained: a frozen weight needs its input no more. Attention counts as its fused kernel
    does, which keeps queries, keys and values, and not what each token makes of each. The true figure is somewhat higher
    where autocast computes norms in float32.
    """
    saved = _Saved(model)
    by_block: list[int] = []
    inputs = 0

    def before(_block: nn.Module, _args: Any, named: dict[str, Any]) -> None:
        nonlocal inputs
        inputs += sum(_nbytes(named[name]) for name in ("hidden_states", "encoder_hidden_states"))
        by_block.append(-saved.nbytes)

    def after(_block: nn.Module, _args: Any, _output: Any) -> None:
        by_block[-1] += saved.nbytes

    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(after) for block in blocks]
    try:
        kept = saved.by(forward)
    finally:
        for hook in hooks:
            hook.remove()
    return Activations(kept, kept - sum(by_block) + inputs + max(by_block))


def encoder_activations(encoder: nn.Module, pixels: Tensor) -> int:
    """What autograd keeps of ``encoder(pixels)`` on the meta device; parameters are not counted."""
    return _Saved(encoder).by(lambda: encoder(pixels)[0])


def states(
    model: nn.Module,
    blocks: nn.ModuleList,
    trained: Collection[str],
    trained_before: Collection[str],
    dtype: torch.dtype,
    shards: int | None,
    *,
    ema: bool,
) -> dict[str, int]:
    """Bytes of weights and of what is kept for each of them, by item.

    ``trained`` are trained now, ``trained_before`` in an earlier stage. ``shards`` None is DDP: what was never trained is in
    ``dtype``, the rest in float32. Otherwise it is FSDP over so many ranks: all in float32, spread; and gathered in ``dtype``
    are the root's parameters, one block at work, the next one on its way, and the gradients of one block.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    learned = sum(sizes[name] for name in trained)
    if shards is None:
        full = {*trained, *trained_before}
        items = {"weights": sum(n * (_FP32 if name in full else dtype.itemsize) for name, n in sizes.items())}
    else:
        block = sum(parameter.numel() for parameter in blocks[0].parameters())
        root = sum(sizes.values()) - len(blocks) * block
        items = {
            "weights": _FP32 * sum(sizes.values()) // shards,
            "gathered weights": (root + 3 * block) * dtype.itemsize,
        }
    items["gradients"] = _FP32 * learned // (shards or 1)
    items["optimizer"] = 2 * _FP32 * learned // (shards or 1)
    if ema:
        ever = sum(sizes[name] for name in {*trained, *trained_before})
        items["moving average"] = _FP32 * ever // (shards or 1)
    return items


class _Saved:
    """Counts what autograd saves, each piece of memory once."""

    def __init__(self, module: nn.Module) -> None:
        # Held, so that no other storage can get the same address.
        self._seen = {p.untyped_storage()._cdata: p.untyped_storage() for p in module.parameters()}
        self.nbytes = 0

    def by(self, forward: Callable[[], Tensor]) -> int:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor), _FusedAttention():
            # While its graph lives, so does all that it saved.
            output = forward()
        del output
        return self.nbytes

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.nbytes += storage.nbytes()
        return tensor


class _FusedAttention(TorchFunctionMode):
    """On the meta device, torch would take attention apart, and save a matrix of tokens by tokens for each head."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return function(*args, **(kwargs or {}))


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
