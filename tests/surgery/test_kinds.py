"""Kinds of networks that people have: exact on fresh inputs of two sizes, counted, saved, again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.size import count_cost, masked_cost
from pyro_relevance.errors import EdgeError
from pyro_relevance.surgery.operations import function_named, name_of_function
from pyro_relevance.surgery.pruning import apply_mask, load_pruned, prune
from pyro_relevance.surgery.steps import GraphNetwork
from tests.small_networks import IMAGES, KINDS, Images


def randomised(network):
    """No parameter is zero, so that sizes can be predicted from a mask."""
    for tensor in network.parameters():
        tensor.data = torch.where(tensor == 0, 0.1 * torch.randn_like(tensor), tensor.data)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def outputs(network, x):
    """Return all outputs of a call in one vector; random numbers are the same in each call."""
    torch.manual_seed(1)
    with torch.no_grad():
        return torch.cat([leaf.double().reshape(-1) for leaf in tree_leaves(network(x))])


def difference(one, other, x):
    a, b = outputs(one, x), outputs(other, x)
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))


def some(edges, density):
    mask = {group.name: torch.rand(group.shape) < density for group in edges}
    for keep in mask.values():
        keep[0] |= not bool(keep.any())
    return mask


@pytest.mark.exact
@pytest.mark.parametrize("name", KINDS)
def test_pruned_is_masked_at_every_size_and_costs_what_was_predicted(name, tmp_path):
    kind = KINDS[name]
    network = randomised(kind.make())
    x = kind.example()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    edges = find_edges(network, example_input=x)
    assert edges.names == kind.groups
    mask = some(edges, 0.6)
    pruned = prune(network, edges, mask, example_input=x)

    masked = apply_mask(network, edges, mask)
    fresh = [kind.example(position) for position in range(len(kind.shapes))]
    assert all(difference(masked, pruned, x) <= 1e-5 for x in fresh)
    predicted, counted = masked_cost(edges, mask), count_cost(pruned.network, x)
    assert replace(predicted, num_macs=0) == replace(counted, num_macs=0)
    # Queries and keys of other lengths take unequal shares of one matrix: an even one is stored.
    assert predicted.num_macs >= counted.num_macs
    assert predicted.num_macs == counted.num_macs or name == "CrossAttention"
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.values(), network.state_dict().values(), strict=True)
    )
    path = tmp_path / "pruned.safetensors"
    pruned.save(path)
    loaded = load_pruned(path)
    assert all(difference(pruned, loaded, x) <= 1e-5 for x in fresh)


@pytest.mark.exact
@pytest.mark.parametrize("name", ["SplitScaled", "Encoder", "Decoder", "OtherForms"])
def test_a_list_of_operations_is_pruned_again(name):
    kind = KINDS[name]
    network, x = randomised(kind.make()), kind.example()
    edges = find_edges(network, example_input=x)
    once = prune(network, edges, some(edges, 0.7), example_input=x).network
    again = find_edges(once, example_input=x)
    assert len(again) >= 1
    mask = some(again, 0.5)
    twice = prune(once, again, mask, example_input=x)
    masked = apply_mask(once, again, mask)
    fresh = [kind.example(position) for position in range(len(kind.shapes))]
    assert all(difference(masked, twice, x) <= 1e-5 for x in fresh)
    assert masked_cost(again, mask).num_parameters >= twice.receipt.after.num_parameters


class PooledWhole(Images):
    """The size of the image is an argument of the pooling, which takes plain numbers."""

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = torch.cat([h[:, 5:], h[:, :5]], 1)
        return self.head(F.avg_pool2d(h, h.shape[2:]).flatten(1))


class Branched(Images):
    """Large images go another way."""

    def body(self, x):
        x = torch.cat([x[:, 5:], x[:, :5]], 1)
        return 2 * x if x.shape[-1] > 9 else x


@pytest.mark.contract
def test_a_size_that_was_frozen_is_refused_in_words():
    network, x = randomised(PooledWhole()), torch.randn(IMAGES[0])
    edges = find_edges(network, example_input=x)
    pruned = prune(network, edges, some(edges, 0.5), example_input=x)
    assert isinstance(pruned.network, GraphNetwork)
    assert pruned(torch.randn(5, 3, 8, 8)).shape == (5, 4)
    with pytest.raises(ValueError, match=r"size of axis 2 of the input 'x' == 8, but got 11"):
        pruned(torch.randn(IMAGES[1]))
    assert any("axes of any size: 0;" in note for note in pruned.receipt.notes)


@pytest.mark.contract
def test_a_branch_on_a_size_is_refused_on_its_other_side_and_right_on_this_one():
    network, x = randomised(Branched()), torch.randn(IMAGES[0])
    edges = find_edges(network, example_input=x)
    mask = some(edges, 0.5)
    pruned = prune(network, edges, mask, example_input=x)
    masked = apply_mask(network, edges, mask)
    assert difference(masked, pruned, torch.randn(4, 3, 12, 9)) <= 1e-5
    with pytest.raises(ValueError, match=r"axis 3 of 'x'.* <= 9, but got 10"):
        pruned(torch.randn(2, 3, 8, 10))
    assert any("axes of any size: 0, 2, 3;" in note for note in pruned.receipt.notes)


@pytest.mark.exact
def test_without_an_example_nothing_is_silent_and_the_sizes_are_told_or_asked_for():
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.LSTM(5, 4))
    edges = find_edges(network)
    reasons = {skipped.name: skipped.reason for skipped in edges.skipped}
    assert "LSTM" in reasons["3.units"]
    with pytest.raises(ValueError, match="Pass example_input to find_edges"):
        masked_cost(edges, some(edges, 1.0))
    for granularity in ("unit", "weight"):
        try:
            found = find_edges(KINDS["TwoLSTMs"].make(), granularity=granularity)
            skipped = {entry.name for entry in found.skipped}
        except EdgeError as error:
            skipped = {str(error)}
        assert any("recurrent" in name for name in skipped)
        assert any("embedding" in name for name in skipped)


@pytest.mark.exact
def test_element_sizes_enter_the_bytes():
    network = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    network, x = randomised(network.double()), torch.randn(4, 8, dtype=torch.float64)
    network[1].running_mean.normal_()
    network[1].bias.data.normal_()
    edges = find_edges(network, example_input=x)
    mask = some(edges, 0.6)
    pruned = prune(network, edges, mask, example_input=x)
    assert masked_cost(edges, mask) == pruned.receipt.after


@pytest.mark.contract
@pytest.mark.parametrize("name", ["__and__", "__or__", "__xor__"])
def test_operators_between_underscores_are_not_taken_for_writes_in_place(name):
    function = getattr(torch.ops.aten, name).Tensor
    found = name_of_function(function)
    assert found == f"torch.ops.aten.{name}.Tensor"
    assert function_named(found) is function
