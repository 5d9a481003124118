"""Multilayer perceptrons: names, sizes, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance.data.networks import MLP, LeNet300100


@pytest.mark.contract
def test_children_have_readable_names():
    network = MLP(13, (50, 20), 1, activation=nn.Tanh)
    names = [name for name, _ in network.named_children()]
    assert names == ["hidden1", "activation1", "hidden2", "activation2", "output"]
    assert isinstance(network.activation2, nn.Tanh)
    assert network(torch.zeros(7, 13)).shape == (7, 1)


@pytest.mark.contract
def test_no_hidden_layer_is_a_linear_model():
    network = MLP(3, (), 2)
    assert [name for name, _ in network.named_children()] == ["output"]


@pytest.mark.contract
@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (5, 784)])
def test_lenet_takes_images_and_columns(shape):
    network = LeNet300100()
    assert network(torch.zeros(shape)).shape == (5, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 266_610


@pytest.mark.contract
def test_sizes_must_be_positive():
    with pytest.raises(
        ValueError, match=r"Expected layer sizes of at least 1, but got \(3, 0, 1\)"
    ):
        MLP(3, (0,), 1)
