"""Floating-point operations of the model, counted and not measured, and what a GPU could do at most.

A multiplication and an addition count as two. Only products of matrices are counted (weights, attention, convolutions):
norms, activations and the rotary embedding are below a thousandth.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shards.schema import FACE_TOKENS, LATENT_FRAMES

_PEAK_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def peak_flops(device_name: str, dtype: Literal["fp32", "bf16"]) -> float | None:
    """Operations a second that the makers state for products of dense bfloat16 matrices with float32 sums.

    ``device_name`` is torch's (``NVIDIA A800-SXM4-80GB``) or a part of it (``A800``). None for devices that are not in the
    table, and for float32, whose peak depends on whether TF32 is allowed.
    """
    if dtype != "bf16":
        return None
    # "A10" must not be found in "A100" or "A10G".
    found = [name for name in _PEAK_BF16 if re.search(rf"(?<!\w){name}(?!\w)", device_name, re.IGNORECASE)]
    return _PEAK_BF16[max(found, key=len)] if found else None


@dataclass(frozen=True)
class Flops:
    """Operations for one sample."""

    tokens: int
    """Of the transformer's sequence: face and video."""
    weights: Mapping[str, int]
    """Forward, by the parameter that is multiplied with: transformer and face projector."""
    attention: int
    """Forward, of the products between tokens."""
    guider: int
    """Forward through the landmark guider; 0 where landmarks come encoded."""
    guider_parameters: tuple[str, ...]

    @property
    def forward(self) -> int:
        """Once through everything."""
        return sum(self.weights.values()) + self.attention + self.guider

    def training(self, trained: Callable[[str], bool]) -> int:
        """Forward and backward of a step that trains the parameters for which ``trained`` says so.

        A product with a weight costs as much again for the gradient of its input, and once more for that of the weight, if
        it is trained; both operands of attention's products need a gradient, whatever is trained. So frozen weights leave
        2× forward for weights and 3× for attention. Gradients are taken to reach the first layer, as they do in all three
        stages of SkyReels-A1; training late layers alone takes less than this. The guider counts 3× if it is trained.
        """
        through = sum(self.weights.values())
        of_weights = sum(flops for name, flops in self.weights.items() if trained(name))
        guider = 3 if any(map(trained, self.guider_parameters)) else 1
        return 2 * through + of_weights + 3 * self.attention + guider * self.guider

    def recomputed(self, trained: Callable[[str], bool], *, blocks: bool) -> int:
        """What is computed once more in the backward pass, to spare memory: a trained guider, and ``blocks`` if so chosen.

        It takes time, and does not count for MFU.
        """
        again = self.guider if any(map(trained, self.guider_parameters)) else 0
        if blocks:
            again += self.attention
            again += sum(flops for name, flops in self.weights.items() if "transformer_blocks." in name)
        return again


def count_flops(
    shapes: Mapping[str, tuple[int, ...]],
    layers: int,
    grid: tuple[int, int],
    frames: int = LATENT_FRAMES,
    guider: int = 0,
    face_tokens: int = FACE_TOKENS,
) -> Flops:
    """Operations of the model whose parameters have these ``shapes``, in closed form.

    ``grid`` is (h, w) of the latents, of which 2×2 make a token; ``frames`` are latent ones; ``guider`` is its forward, from
    :func:`forward_flops`; ``face_tokens`` are those beside the video's. For CogVideoX-5B at 60×90: 18 279 tokens, 3.46e14
    operations, half of them attention.
    """
    video = frames * (grid[0] // 2) * (grid[1] // 2)
    tokens = video + face_tokens
    uses = (
        (r"transformer\.transformer_blocks\.\d+\.norm[12]\.linear\.", 1),
        (r"transformer\.transformer_blocks\.", tokens),
        (r"transformer\.patch_embed\.text_proj\.", face_tokens),
        (r"transformer\.patch_embed\.proj\.|transformer\.proj_out\.", video),
        (r"transformer\.(time_embedding|norm_out)\.", 1),
        (r"face\.", face_tokens),
    )
    weights = {}
    guider_parameters = tuple(name for name in shapes if name.startswith("guider."))
    for name, shape in shapes.items():
        if len(shape) > 1 and name not in guider_parameters:
            times = next(times for pattern, times in uses if re.match(pattern, name))
            weights[name] = 2 * times * math.prod(shape)
    width = shapes["transformer.proj_out.weight"][1]
    attention = layers * 2 * (2 * tokens * tokens * width)  # queries by keys, and what comes of it by values
    return Flops(tokens, weights, attention, guider, guider_parameters)


def forward_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Operations of ``module(*inputs)`` as torch counts them, call by call; on the meta device nothing is computed."""
    # The counter has no formula for the fused attention of CPUs.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    return int(counter.get_total_flops())
