"""Priors over operations: their log weights by hand, and the density of their rates."""

from __future__ import annotations

import math

import pytest
import torch
from pyro import poutine
from scipy import stats

from pyro_relevance import find_edges, priors
from pyro_relevance.model.priors.operations import ABSENT
from tests.small_graphs import make_graph

EDGES = find_edges(make_graph(), granularity="operation", example_input=torch.zeros(2, 3))
ALL = [priors.CategoricalPrior(), priors.OperationCostPrior(), priors.DirichletPrior()]
LABELS = [("relu", "tanh", "none"), ("linear", "linear_tanh"), ("none", "linear")]


def type_name(value):
    return type(value).__name__


def table(*rows):
    return torch.tensor([[*row, *[ABSENT] * (3 - len(row))] for row in rows])


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=type_name)
def test_has_a_weight_for_each_operation_and_the_sites_that_it_states(prior):
    assert isinstance(prior, priors.OperationPrior)
    assert [group.labels for group in EDGES.operations] == LABELS
    logits = prior.logits(EDGES).double()
    trace = poutine.trace(prior.sample).get_trace(logits, EDGES)
    sampled = trace.nodes["_RETURN"]["value"]
    assert sampled.shape == logits.shape == (3, 3)
    assert sampled.dtype == torch.float64
    stated = {latent.name: tuple(latent.initial.shape) for latent in prior.latents(EDGES)}
    sites = {name: tuple(trace.nodes[name]["value"].shape) for name in trace.stochastic_nodes}
    assert sites == stated
    # What an edge does not have has no probability, in any format.
    absent = sampled.softmax(-1)[1:, 2]
    assert absent.tolist() == [0.0, 0.0]


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=type_name)
def test_is_a_value(prior):
    assert prior == type(prior)(**prior.__dict__) == type(prior)()
    with pytest.raises(AttributeError):
        prior.anything = 1


@pytest.mark.exact
def test_given_weights_by_operation_and_by_group_add_up():
    assert torch.equal(
        priors.CategoricalPrior().logits(EDGES), table([0.0] * 3, [0.0] * 2, [0.0] * 2)
    )
    given = {"none": 2.0, "graph.h.y": torch.tensor([0.5, -0.5]), "graph.x.y": torch.ones(2)}
    found = priors.CategoricalPrior(given).logits(EDGES)
    assert torch.equal(found, table([0.0, 0.0, 2.0], [0.5, -0.5], [3.0, 1.0]))
    # A number for a group moves all of its operations.
    shifted = priors.CategoricalPrior({"linear": -1.0, "graph.h.y": 4.0}).logits(EDGES)
    assert torch.equal(shifted, table([0.0] * 3, [3.0, 4.0], [0.0, -1.0]))


@pytest.mark.exact
def test_operations_pay_for_their_parameters():
    # From six nodes to one: 6 + 1. From three: 3 + 1.
    expected = table([0.0] * 3, [-7.0, -7.0], [0.0, -4.0])
    torch.testing.assert_close(priors.OperationCostPrior().logits(EDGES), expected)
    half = priors.OperationCostPrior(0.5).logits(EDGES)
    torch.testing.assert_close(half, table([0.0] * 3, [-3.5, -3.5], [0.0, -2.0]))
    assert float(priors.OperationCostPrior(0.0).logits(EDGES).max()) == 0.0
    for nats in (-0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"Expected nats >= 0 per parameter, but got {nats}"):
            priors.OperationCostPrior(nats)


@pytest.mark.exact
def test_frequencies_of_operations_are_shared_by_all_edges():
    prior = priors.DirichletPrior(0.5)
    (latent,) = prior.latents(EDGES)
    assert (latent.name, latent.kind, latent.initial_scale) == ("operation_rate", "positive", 0.3)
    assert latent.initial.tolist() == [0.5] * 5  # linear, linear_tanh, none, relu, tanh
    rates = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    logits = prior.logits(EDGES).double()
    assert torch.equal(logits, table([0.0] * 3, [0.0] * 2, [0.0] * 2).double())
    with poutine.condition(data={"operation_rate": rates}):
        trace = poutine.trace(prior.sample).get_trace(logits, EDGES)
    shares = trace.nodes["_RETURN"]["value"].softmax(-1)
    expected = [[4 / 12, 5 / 12, 3 / 12], [1 / 3, 2 / 3, 0.0], [3 / 4, 1 / 4, 0.0]]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))
    density = stats.gamma(0.5).logpdf(rates.numpy()).sum()
    assert float(trace.log_prob_sum()) == pytest.approx(density)


@pytest.mark.exact
def test_densities_of_many_chains_are_those_of_each():
    prior = priors.DirichletPrior(0.5)
    logits = prior.logits(EDGES)

    def density(rates):
        with poutine.condition(data={"operation_rate": rates}):
            trace = poutine.trace(prior.sample).get_trace(logits, EDGES)
        return trace.nodes["operation_rate"]["fn"].log_prob(rates)

    chains = torch.rand(3, 5) + 0.1
    together = torch.func.vmap(density)(chains)
    torch.testing.assert_close(together, torch.stack([density(chain) for chain in chains]))


@pytest.mark.contract
def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"'linear_tanh', 'none', 'relu', 'tanh'\] or of the gr"):
        priors.CategoricalPrior({"conv": 1.0}).logits(EDGES)
    with pytest.raises(ValueError, match=r"of shape \(2,\), one for each .* but got \(3,\)"):
        priors.CategoricalPrior({"graph.h.y": torch.zeros(3)}).logits(EDGES)
    with pytest.raises(ValueError, match=r"of shape \(2,\), one for each .* but got \(1,\)"):
        priors.CategoricalPrior({"graph.h.y": torch.zeros(1)}).logits(EDGES)
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"Expected finite log_weights of 'graph\.h\.y'"):
            priors.CategoricalPrior({"graph.h.y": torch.tensor([0.0, value])}).logits(EDGES)
    with pytest.raises(ValueError, match="Expected concentration > 0, but got 0"):
        priors.DirichletPrior(0.0)
