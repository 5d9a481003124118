"""A recording repeats the operators of a function: draws, changes in place, no value reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance.training.programs.recording import record


@pytest.mark.exact
def test_a_recording_draws_anew_and_changes_in_place():
    total = torch.zeros(3)

    def function(x):
        noise = torch.rand(3)
        total.add_(x)
        return x.t().t() * noise.view(3), torch.ones(3) + 1 + x

    repeated = record(function, [torch.ones(3)])
    total.zero_()
    torch.manual_seed(0)
    first, shifted = repeated(torch.full((3,), 2.0))
    second, _ = repeated(torch.full((3,), 2.0))
    torch.manual_seed(0)
    assert torch.equal(first, 2 * torch.rand(3))
    assert torch.equal(second, 2 * torch.rand(3))
    assert torch.equal(total, torch.full((3,), 4.0))
    assert torch.equal(shifted, torch.full((3,), 4.0))


@pytest.mark.exact
def test_a_constant_that_is_written_to_is_made_anew():
    def function(x):
        buffer = torch.zeros(2)
        buffer.view(2).add_(x)
        return (buffer * 1.0,)

    repeated = record(function, [torch.ones(2)])
    assert torch.equal(repeated(torch.ones(2))[0], torch.ones(2))
    assert torch.equal(repeated(torch.ones(2))[0], torch.ones(2))


@pytest.mark.exact
def test_numbers_that_have_no_text():
    def function(x):
        return (x.clamp(-float("inf"), float("inf")).masked_fill(x > 0, float("nan")),)

    (value,) = record(function, [torch.ones(2)])(torch.tensor([-1.0, 1.0]))
    assert value[0] == -1.0
    assert value[1].isnan()


@pytest.mark.contract
def test_values_cannot_be_read():
    with pytest.raises(RuntimeError):
        record(lambda x: (x if x.sum() > 0 else -x,), [torch.ones(2)])


@pytest.mark.contract
def test_a_draw_cannot_be_read_either():
    with pytest.raises(RuntimeError, match="reads a value that differs between replays"):
        record(lambda x: (x * float(torch.rand(())),), [torch.ones(2)])


@pytest.mark.exact
def test_a_constant_can_be_read():
    (value,) = record(lambda x: (x * float(torch.tensor(3.0)),), [torch.ones(2)])(torch.ones(2))
    assert value.tolist() == [3.0, 3.0]


@pytest.mark.exact
def test_a_tensor_that_is_no_argument_is_a_constant():
    other = torch.ones(2)
    repeated = record(lambda x: (x * (other * 2),), [torch.ones(2)])
    other.mul_(5)
    assert repeated(torch.ones(2))[0].tolist() == [2.0, 2.0]


@pytest.mark.exact
def test_gradients_of_vectorised_networks_are_operators_too():
    layers = [nn.Linear(3, 2) for _ in range(2)]
    weights = torch.stack([layer.weight.detach() for layer in layers]).requires_grad_()

    def function(weights, x):
        outputs = torch.func.vmap(lambda w: torch.relu(x @ w.t()).square().sum())(weights)
        return (outputs.detach(), *torch.autograd.grad(outputs.sum(), [weights]))

    repeated = record(function, [weights, torch.ones(4, 3)])
    x = torch.randn(4, 3)
    with torch.no_grad():
        found = repeated(weights.detach(), x)
    expected = function(weights, x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.exact
def test_several_results_of_an_operator():
    def function(x):
        values, index = x.sort()
        return values * 2, index

    values, index = record(function, [torch.tensor([1.0, 2.0])])(torch.tensor([4.0, 3.0]))
    assert values.tolist() == [6.0, 8.0]
    assert index.tolist() == [1, 0]
