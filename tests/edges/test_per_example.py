"""Gates applied to inputs are gates folded into weights, example by example."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from pyro_relevance import Edges, find_edges, networks
from pyro_relevance.edges.find import EdgeGroup, Slot
from pyro_relevance.edges.per_example import InputGates
from pyro_relevance.errors import EdgeError


class Convolutional(nn.Sequential):
    """Units that are channels, read by a convolution and, flattened, by a linear layer."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 2),
        )

    def edges(self):
        pixels = tuple(channel for channel in range(4) for _ in range(4))
        groups = (
            EdgeGroup("0.units", "unit", (3,), "abc", (Slot("2.weight", 1),)),
            EdgeGroup("2.units", "unit", (4,), "abcd", (Slot("6.weight", 1, pixels),)),
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        return Edges(groups, (), shapes)


class Transposed(nn.Module):
    """A transposed convolution, whose weight has what it reads along its first axis."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2, stride=2)

    def forward(self, x):
        return self.up(torch.relu(self.conv(x))).flatten(1)


def make_case(name):
    if name == "transposed":
        network, x = Transposed(), torch.randn(6, 2, 4, 4)
        return network, find_edges(network, example_input=x, granularity="unit"), x
    if name == "convolutions":
        network = Convolutional().eval()
        return network, network.edges(), torch.randn(6, 2, 4, 4)
    network = networks.MLP(3, [4, 5], 2)
    index = {"mlp": None, "tied inputs": (0, 1, 1), "free inputs": (0, -1, 1)}[name]
    edges = find_edges(network, granularity=("input", "unit"), input_index=index)
    return network, edges, torch.randn(6, 7, 3) if name == "mlp" else torch.randn(6, 3)


@pytest.mark.exact
@pytest.mark.parametrize(
    "name", ["mlp", "tied inputs", "free inputs", "convolutions", "transposed"]
)
def test_equals_folding_example_by_example(name):
    network, edges, x = make_case(name)
    gates = {group.name: torch.rand(6, *group.shape) for group in edges}
    gated = copy.deepcopy(network)
    hooks = InputGates(gated, edges)
    with hooks.applied(gates):
        together = gated(x)
    parameters = dict(network.named_parameters())
    for i in range(6):
        folded = edges.fold(parameters, {name: gate[i] for name, gate in gates.items()})
        alone = torch.func.functional_call(network, folded, (x[i : i + 1],))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.contract
def test_gates_act_inside_the_block_only_and_can_be_removed():
    network = networks.MLP(3, [4], 2)
    edges = find_edges(network, granularity=("input", "unit"))
    x = torch.randn(6, 3)
    plain = network(x)
    hooks = InputGates(network, edges)
    gates = {group.name: torch.zeros(6, *group.shape) for group in edges}

    def fail():
        with hooks.applied(gates):
            torch.testing.assert_close(network(x), network.output.bias.expand(6, 2))
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    torch.testing.assert_close(network(x), plain)
    hooks.remove()
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.contract
def test_a_deep_copy_has_gates_of_its_own():
    network = networks.MLP(3, [4], 2)
    edges = find_edges(network, granularity="input")
    pair = {"network": network, "hooks": InputGates(network, edges)}
    other = copy.deepcopy(pair)
    x = torch.randn(6, 3)
    with other["hooks"].applied({"inputs": torch.zeros(6, 3)}):
        torch.testing.assert_close(other["network"](x), network(torch.zeros(6, 3)))
        assert not torch.allclose(network(x), network(torch.zeros(6, 3)))
    other["hooks"].remove()
    assert any(module._forward_pre_hooks for module in network.modules())
    assert not any(module._forward_pre_hooks for module in other["network"].modules())


@pytest.mark.contract
def test_single_weights_are_refused_before_any_hook():
    network = networks.MLP(3, [4], 2)
    edges = find_edges(network, granularity=("input", "weight"))
    text = (
        "Expected groups of inputs or units for noise='per_example', but group 'hidden1.weight' "
        "acts on entries of 'hidden1.weight'. Use noise='shared' for single weights."
    )
    with pytest.raises(EdgeError, match=re.escape(text)):
        InputGates(network, edges)
    assert not any(module._forward_pre_hooks for module in network.modules())
