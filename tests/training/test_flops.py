from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.flops import Flops, count_flops, forward_flops, peak_flops

GRID = (8, 12)
FRAMES = 5
STAGES: dict[str, Callable[[str], bool]] = {
    "motion": lambda name: name == "transformer.patch_embed.proj.weight",
    "identity": lambda name: name.startswith("face."),
    "joint": lambda name: "transformer_blocks." in name or name.startswith("face."),
    "all": lambda name: True,
}


class Model(nn.Module):
    """The transformer and the projector under the names they have in training."""

    def __init__(self, layers: int, heads: int, head_size: int, face: int, text: int, **changes: Any) -> None:
        super().__init__()
        self.transformer = CogVideoXTransformer3DModel(
            num_layers=layers,
            num_attention_heads=heads,
            attention_head_dim=head_size,
            in_channels=48,
            out_channels=16,
            text_embed_dim=text,
            max_text_seq_length=729,
            use_rotary_positional_embeddings=True,
            **changes,
        )
        self.face = nn.Sequential(nn.Linear(face, 3 * face), nn.SiLU(), nn.Linear(3 * face, text))

    def forward(self, noisy: Tensor, face_tokens: Tensor, timestep: Tensor) -> Tensor:
        return self.transformer(noisy, self.face(face_tokens), timestep, return_dict=False)[0]


def small() -> Model:
    return Model(layers=2, heads=2, head_size=8, face=24, text=32, time_embed_dim=16)


def inputs(grid: tuple[int, int], frames: int, face: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(1, frames, 48, *grid), torch.zeros(1, 729, face), torch.zeros(1, dtype=torch.int64)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def test_the_forward_count_is_torchs_own() -> None:
    model = small()
    flops = count_flops(shapes(model), layers=2, grid=GRID, frames=FRAMES)
    assert flops.forward == forward_flops(model, *inputs(GRID, FRAMES, face=24))


def test_fewer_face_tokens_cost_less() -> None:
    model = small()
    noisy, face_tokens, timestep = inputs(GRID, FRAMES, face=24)
    model.transformer.patch_embed.max_text_seq_length = 9
    flops = count_flops(shapes(model), layers=2, grid=GRID, frames=FRAMES, face_tokens=9)
    assert flops.forward == forward_flops(model, noisy, face_tokens[:, :9], timestep)


def test_the_model_of_the_paper_has_18279_tokens_and_takes_346e14_operations_half_of_them_attention() -> None:
    with torch.device("meta"):
        model = Model(layers=42, heads=48, head_size=64, face=1152, text=4096)
        flops = count_flops(shapes(model), layers=42, grid=(60, 90))
        assert flops.forward == forward_flops(model, *inputs((60, 90), 13, face=1152))
    assert flops.tokens == 18_279
    assert flops.forward == pytest.approx(3.46e14, rel=2e-3)
    assert flops.attention / flops.forward == pytest.approx(0.5, abs=0.01)
    assert flops.training(STAGES["all"]) == 3 * flops.forward
    assert flops.training(STAGES["all"]) == pytest.approx(1.04e15, rel=2e-3)
    assert flops.recomputed(STAGES["all"], blocks=True) == pytest.approx(flops.forward, rel=1e-3)
    assert flops.recomputed(STAGES["all"], blocks=False) == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_step_counts_what_torch_counts_in_the_backward_pass(stage: str) -> None:
    model = small()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = STAGES[stage](name)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*inputs(GRID, FRAMES, face=24)).sum().backward()
    flops = count_flops(shapes(model), layers=2, grid=GRID, frames=FRAMES)
    # What no gradient passes is counted all the same: inputs of the first layers, here a few per cent.
    first_layers = flops.forward - sum(f for n, f in flops.weights.items() if "blocks." in n) - flops.attention
    assert 0 <= flops.training(STAGES[stage]) - counter.get_total_flops() <= first_layers


def test_frozen_weights_leave_two_and_a_half_forwards_at_full_size() -> None:
    with torch.device("meta"):
        flops = count_flops(shapes(Model(layers=42, heads=48, head_size=64, face=1152, text=4096)), 42, (60, 90))
    for stage in ("motion", "identity"):
        assert flops.training(STAGES[stage]) / flops.forward == pytest.approx(2.5, abs=0.01)


def test_a_guider_counts_once_when_it_is_frozen_and_three_times_when_it_trains() -> None:
    frozen = Flops(tokens=1, weights={}, attention=0, guider=10, guider_parameters=("guider.a", "guider.b"))
    assert frozen.training(lambda name: name == "face.0.weight") == 10
    assert frozen.training(lambda name: name == "guider.b") == 30
    assert frozen.recomputed(lambda name: name == "guider.b", blocks=False) == 10


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA A800-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("A800", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Intel Xeon", None),
    ],
)
def test_peaks_are_found_by_torchs_device_names(device: str, peak: float | None) -> None:
    assert peak_flops(device, "bf16") == peak


def test_no_peak_is_claimed_for_float32() -> None:
    assert peak_flops("NVIDIA A800-SXM4-80GB", "fp32") is None
