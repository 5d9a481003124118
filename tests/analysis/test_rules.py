"""Rules of the experiments against counting on pruned networks."""

from __future__ import annotations

import pytest
import torch

from analysis.rules import filter_ranks, macs_share, median_within
from pyro_relevance import Mask, find_edges, networks, prune
from pyro_relevance.edges.size import count_cost, masked_cost
from tests.small_fits import make_model, quick_fit


def make_case():
    torch.manual_seed(0)
    network, x = networks.LeNet5Caffe().eval(), torch.randn(2, 1, 28, 28)
    return network, find_edges(network, example_input=x, granularity="unit"), x


@pytest.mark.exact
def test_the_share_of_an_edge_is_what_its_removal_saves():
    network, edges, x = make_case()
    whole = count_cost(network, x).num_macs
    for name, share in macs_share(edges).items():
        mask = {**Mask.all_kept(edges)}
        mask[name] = torch.arange(len(mask[name])) != 3
        left = prune(network, edges, mask, example_input=x).receipt.after.num_macs
        assert share == pytest.approx(1 - left / whole, rel=1e-9)


@pytest.mark.exact
def test_filters_are_ranked_within_their_layer():
    network, edges, _ = make_case()
    with torch.no_grad():
        network.conv1.weight[7] *= 100
        network.conv1.weight[3] = 0
    ranks = filter_ranks(network, edges)
    assert set(ranks) == {"conv1.units", "conv2.units", "hidden1.units"}
    assert ranks["conv1.units"].argmax() == 7
    assert ranks["conv1.units"].argmin() == 3
    assert all(float(rank.max()) == 1.0 for rank in ranks.values())
    norms = network.conv2.weight.detach().abs().sum((1, 2, 3))
    assert torch.equal(ranks["conv2.units"].argsort(), norms.argsort())


@pytest.mark.exact
def test_a_residual_stream_has_no_filter_of_its_own():
    network = networks.ResNet20()
    edges = find_edges(network, example_input=torch.randn(1, 3, 32, 32), granularity="unit")
    assert set(edges.names) - set(filter_ranks(network, edges)) == {"conv1.units"}


@pytest.mark.exact
def test_the_median_model_is_pruned_to_the_limit_only_where_it_is_above():
    posterior = quick_fit(make_model()).posterior
    edges = posterior.edges
    whole = masked_cost(edges, Mask.all_kept(edges)).num_nonzero
    free, tight = median_within(posterior, whole), median_within(posterior, whole // 2)
    assert masked_cost(edges, tight).num_nonzero <= whole // 2
    assert all(bool((tight[name] <= free[name]).all()) for name in free)
    assert free == median_within(posterior, 10 * whole)
