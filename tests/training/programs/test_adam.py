"""A short step of Adam is the long one, bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pyro_relevance.training.programs.adam import Adam


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2), (2,), (4,))
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def groups(parameters):
    return [{"params": parameters[:2], "lr": 1e-2}, {"params": parameters[2:], "lr": 3e-2}]


def set_gradients(parameters, step):
    for index, parameter in enumerate(parameters):
        missing = index == 1 and step == 2
        parameter.grad = None if missing else torch.sin(parameter.detach() + step)


@pytest.mark.exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_takes_the_steps_of_torch(dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    short, long = Adam(groups(ours)), torch.optim.Adam(groups(theirs), fused=True)
    for step in range(6):
        for optimizer in (short, long):
            optimizer.param_groups[1]["lr"] = 0.1 / (step + 1)
        set_gradients(ours, step)
        set_gradients(theirs, step)
        short.update()
        long.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert type(short).__name__ == type(long).__name__
    again = Adam(groups(copy.deepcopy(ours)))
    again.load_state_dict(long.state_dict())
    assert again.state_dict()["state"].keys() == short.state_dict()["state"].keys()


@pytest.mark.exact
def test_mixed_types_and_hooks_go_the_long_way(monkeypatch):
    calls = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: (calls.append(1), step(self))[1])
    weights = parameters()
    optimizer = Adam(groups(weights))
    for index in range(3):
        set_gradients(weights, index)
        optimizer.update()
    assert len(calls) == 1  # the first step makes the state
    handle = optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.update()
    handle.remove()
    assert len(calls) == 2
    mixed = [parameters()[0], parameters(torch.float64)[1]]
    optimizer = Adam([{"params": mixed, "lr": 1e-2}])
    for index in range(3):
        set_gradients(mixed, index)
        optimizer.update()
    assert len(calls) == 5
