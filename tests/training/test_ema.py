from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.training.ranks import run_ranks
from training.ema import Ema
from training.parallel import finish, start
from training.parallel_config import ParallelConfig


def steps(model: nn.Module, values: list[float], ema: Ema) -> None:
    for value in values:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        ema.update()


def model(value: float) -> nn.Linear:
    made = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def test_after_its_warm_up_it_is_the_geometric_series() -> None:
    net = model(4.0)
    ema = Ema(dict(net.named_parameters()), decay=0.5)
    ema.resume(1_000_000)
    steps(net, [1.0] * 6, ema)
    assert torch.equal(ema.average["weight"], torch.full((2, 3), 1 + 3 * 0.5**6))


def test_a_young_average_forgets_faster() -> None:
    net = model(0.0)
    ema = Ema(dict(net.named_parameters()), decay=0.999)
    steps(net, [1.0, 2.0, 3.0], ema)
    # d = 1/10, 2/11, 3/12
    first = 0.9
    second = first * 2 / 11 + 2 * 9 / 11
    third = second / 4 + 3 * 3 / 4
    torch.testing.assert_close(ema.average["bias"], torch.full((2,), third))
    assert ema.updates == 3


def test_inside_swapped_the_model_has_the_averages_and_after_it_its_own_bits() -> None:
    net = model(0.0)
    ema = Ema(dict(net.named_parameters()), decay=0.9)
    steps(net, [0.1], ema)
    own = {name: p.detach().clone() for name, p in net.named_parameters()}
    averages = {name: a.clone() for name, a in ema.average.items()}
    with suppress(KeyError), ema.swapped(net):
        inside = {name: p.detach().clone() for name, p in net.named_parameters()}
        raise KeyError
    assert all(torch.equal(inside[name], average) for name, average in averages.items())
    assert all(torch.equal(p, own[name]) for name, p in net.named_parameters())
    assert all(torch.equal(a, averages[name]) for name, a in ema.average.items())


def test_parameters_stay_where_they_are_in_memory() -> None:
    net = model(1.0)
    address = net.weight.data_ptr()
    with Ema(dict(net.named_parameters()), decay=0.9).swapped(net):
        assert net.weight.data_ptr() == address
    assert net.weight.data_ptr() == address


def sharded() -> tuple[list[float], bool]:
    """What a sharded model gives with its own parameters (2), with their averages (1), and with its own again."""
    world = start(ParallelConfig())
    try:
        net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        for layer in net:
            nn.init.ones_(layer.weight)
        fully_shard(net[0])
        fully_shard(net)
        ema = Ema(dict(net.named_parameters()), decay=0.9)
        given = []
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)
            ones = torch.ones(1, 4, device=world.device)
            given.append(float(net(ones)[0, 0]))
            with ema.swapped(net):
                given.append(float(net(ones)[0, 0]))
            given.append(float(net(ones)[0, 0]))
        return given, all(isinstance(average, DTensor) for average in ema.average.values())
    finally:
        finish()


def test_a_sharded_model_uses_the_averages_and_not_what_it_gathered_before(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, 2, sharded) == [([64.0, 16.0, 64.0], True)] * 2


def test_bfloat16_parameters_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16"):
        Ema(dict(model(0.0).bfloat16().named_parameters()), decay=0.9)
