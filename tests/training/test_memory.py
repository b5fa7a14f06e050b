import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.memory import encoder_activations, states, transformer_activations

TOKENS, WIDTH, LAYERS = 10, 8, 3


class Block(nn.Module):
    """Keeps its input, what goes into GELU and what comes out of it; the tokens of the text pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        return self.down(functional.gelu(self.up(hidden_states))), encoder_hidden_states


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self) -> Tensor:
        hidden, text = self.first(torch.empty(1, TOKENS, WIDTH)), torch.empty(1, 2, WIDTH)
        for block in self.blocks:
            hidden, text = block(hidden_states=hidden, encoder_hidden_states=text)
        last: Tensor = self.last(hidden)
        return last


def test_kept_are_the_inputs_of_trained_layers_and_of_what_is_not_linear() -> None:
    with torch.device("meta"):
        model = Model()
        found = transformer_activations(model, model.blocks, model)
    unit = TOKENS * WIDTH * 4
    block = (1 + 4 + 4) * unit
    assert found.kept == LAYERS * block + 2 * unit
    # A block's first kept tensor is its input, which the last line counts with those of all blocks, and once more.
    inputs = LAYERS * (unit + 2 * WIDTH * 4)
    assert found.checkpointed == 2 * unit + block + inputs


def test_a_frozen_layer_needs_its_input_no_more() -> None:
    with torch.device("meta"):
        model = Model()
        model.blocks.requires_grad_(False)
        found = transformer_activations(model, model.blocks, model)
    unit = TOKENS * WIDTH * 4
    assert found.kept == LAYERS * 4 * unit + 2 * unit


class Attention(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (functional.scaled_dot_product_attention(x, 2 * x, 3 * x),)


def test_attention_keeps_no_matrix_of_tokens_by_tokens() -> None:
    heads, tokens, size = 2, 4096, 16
    x = torch.empty(1, heads, tokens, size, dtype=torch.bfloat16, device="meta", requires_grad=True)
    operands = 4 * heads * tokens * size * 2
    kept = encoder_activations(Attention(), x)
    assert operands <= kept < 1.2 * operands


@pytest.mark.parametrize("ema", [False, True])
def test_ddp_holds_what_was_never_trained_in_bfloat16_and_the_rest_in_float32(ema: bool) -> None:
    model = Model()
    one = WIDTH * WIDTH + WIDTH
    block = 2 * 4 * WIDTH * WIDTH + 5 * WIDTH
    found = states(model, model.blocks, {"first.weight", "first.bias"}, {"last.weight"}, torch.bfloat16, None, ema=ema)
    expected = {
        "weights": 4 * one + 4 * WIDTH * WIDTH + 2 * WIDTH + LAYERS * block * 2,
        "gradients": 4 * one,
        "optimizer": 8 * one,
    }
    assert found == expected | ({"moving average": 4 * (one + WIDTH * WIDTH)} if ema else {})


def test_fsdp_spreads_all_in_float32_and_gathers_a_few_blocks() -> None:
    model = Model()
    names = {name for name, _ in model.named_parameters()}
    one = WIDTH * WIDTH + WIDTH
    block = 2 * 4 * WIDTH * WIDTH + 5 * WIDTH
    everything = 2 * one + LAYERS * block
    found = states(model, model.blocks, names, set(), torch.bfloat16, 4, ema=False)
    assert found == {
        "weights": everything,
        "gathered weights": 2 * (2 * one + 3 * block),
        "gradients": everything,
        "optimizer": 2 * everything,
    }
