"""Example inputs, evaluation mode and new weights of any module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance.edges.modules import evaluating, example_arguments, reinitialise

pytestmark = pytest.mark.contract


class Scaled(nn.Module):
    """A module with a parameter and no way to draw it again."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def test_a_single_input_becomes_a_tuple():
    x = torch.ones(2)
    assert example_arguments(x) == (x,)
    assert example_arguments((x, x)) == (x, x)


def test_each_module_gets_its_own_mode_back():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())

    def look():
        with evaluating(network):
            assert not any(module.training for module in network.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        look()
    assert [module.training for module in network.modules()] == [True, True, False]


def test_layers_are_drawn_again_and_others_named():
    network = nn.Sequential(nn.Linear(2, 3), Scaled(), nn.MultiheadAttention(4, 2), nn.ReLU())
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    assert reinitialise(network) == [("1", network[1])]
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert {"0.weight", "0.bias", "2.in_proj_weight"} <= changed
    assert "1.scale" not in changed
