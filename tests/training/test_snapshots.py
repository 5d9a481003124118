"""States of a run as tensors by name: nothing is lost on the way there and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance._files import tensors_below
from pyro_relevance.training.snapshots import (
    KeptState,
    generator_state,
    load_optimizer,
    optimizer_state,
    set_generator_state,
    to_host,
)

CPU = torch.device("cpu")


def steps(layer: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
    for _ in range(number):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD, torch.optim.Rprop])
def test_an_optimiser_goes_on_from_its_state(make: type[torch.optim.Optimizer]) -> None:
    settings = {"lr": 0.1, **({"momentum": 0.9} if make is torch.optim.SGD else {})}
    first = nn.Linear(3, 2)
    optimizer = make(first.parameters(), **settings)
    steps(first, optimizer, 3)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    other = make(second.parameters(), **settings)
    load_optimizer(other, to_host(optimizer_state(optimizer), ""))
    steps(first, optimizer, 2)
    steps(second, other, 2)
    assert torch.equal(first.weight, second.weight)


def test_a_state_that_is_no_tensor_is_refused() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer.state[layer.weight]["history"] = ["a"]
    with pytest.raises(TypeError, match="SGD keeps 'history' as list"):
        optimizer_state(optimizer)


def test_copies_do_not_follow_their_origin_and_parts_lose_their_prefix() -> None:
    tensor = torch.zeros(2)
    copies = to_host({"a/b": tensor}, "program/")
    tensor += 1
    found = tensors_below("program/", {**copies, "batches/a": tensor})
    assert list(found) == ["a/b"]
    assert found["a/b"].tolist() == [0.0, 0.0]


def test_random_numbers_repeat_from_a_state() -> None:
    with torch.random.fork_rng(devices=[]):
        state = generator_state(CPU)
        drawn = torch.rand(4)
        set_generator_state(CPU, state)
        assert torch.equal(torch.rand(4), drawn)


@pytest.mark.exact
def test_a_kept_state_is_one_copy_that_is_written_over() -> None:
    weight, count = nn.Parameter(torch.zeros(3)), torch.tensor(1)
    kept = KeptState()
    kept.keep({"weight": weight, "old": torch.ones(1)}, lambda: {"count": count})
    address = kept.tensors["weight"].data_ptr()
    with torch.no_grad():
        weight += 1
    assert kept.tensors["weight"].tolist() == [0.0] * 3
    assert kept.tensors["count"] is count
    kept.keep({"weight": weight, "new": torch.ones(2)}, dict)
    assert {name: t.tolist() for name, t in kept.tensors.items()} == {
        "weight": [1.0] * 3,
        "new": [1.0] * 2,
    }
    assert kept.tensors["weight"].data_ptr() == address
    kept.keep({"weight": weight.double()[:2]}, dict)
    assert kept.tensors["weight"].dtype == torch.float64
    assert kept.tensors["weight"].shape == (2,)
