"""Baselines that search: gradients against their definition, controllers, supernets, queries."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.comparison.baselines import (
    DartsSettings,
    Recipe,
    darts,
    evolution,
    random_search,
    reinforce,
    search_by_training,
    single_path,
    strongest_operations,
    train_random_architecture,
)
from pyro_relevance.comparison.baselines.darts import search_gradient, search_operations
from pyro_relevance.comparison.baselines.reinforcement import Controller
from pyro_relevance.comparison.baselines.searching import DEAD
from pyro_relevance.comparison.baselines.single_path import train_shared
from pyro_relevance.data.splits import split_examples
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs import Architecture, Graph, GraphEdge
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.search.queries import QuerySearch
from tests.small_fits import same
from tests.small_graphs import make_data, make_graph

RECIPE = Recipe(pr.likelihoods.Gaussian(0.5), batch_size=20, learning_rate=1e-2)


def make(full):
    return make_graph(seed=1)


def data():
    return make_data(60)


@pytest.mark.exact
@pytest.mark.parametrize("unrolled", [0.0, 0.3])
def test_the_gradient_of_darts_is_that_of_the_unrolled_loss(unrolled):
    torch.manual_seed(0)
    kind = {"dtype": torch.float64}
    weights = {"w": torch.randn(3, **kind).requires_grad_(), "unused": torch.zeros(1, **kind)}
    weights["unused"].requires_grad_()
    logits = {"a": torch.randn(2, **kind).requires_grad_()}

    def loss(weights, logits, x, y):
        gates = logits["a"].softmax(0)
        outputs = gates[0] * torch.tanh(x @ weights["w"]) + gates[1] * (x @ weights["w"])
        return (outputs - y).square().mean()

    train = torch.randn(8, 3, **kind), torch.randn(8, **kind)
    held = torch.randn(8, 3, **kind), torch.randn(8, **kind)

    def outer(a):
        step = torch.autograd.grad(loss(weights, {"a": a}, *train), weights["w"])[0]
        moved = weights["w"] - unrolled * step
        return float(loss({"w": moved}, {"a": a}, *held).detach())

    value, gradient = search_gradient(loss, weights, logits, train, held, unrolled=unrolled)
    here = logits["a"].detach()
    assert float(value) == pytest.approx(outer(here))
    for place in range(2):
        change = torch.zeros(2, **kind)
        change[place] = 1e-5
        slope = (outer(here + change) - outer(here - change)) / 2e-5
        assert float(gradient["a"][place]) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def make_choice(full):
    return Graph(
        {"x": 2, "a": 8, "h": 8, "y": 1},
        [
            GraphEdge("x", "a", "linear"),
            GraphEdge("a", "h", ("none", "identity", "sine")),
            GraphEdge("h", "y", "linear"),
        ],
        output="y",
    )


@pytest.mark.exact
@pytest.mark.parametrize("order", ["first", "second"])
def test_the_steps_of_darts_are_those_of_the_paper(order):
    """Three steps on whole halves of the data, written anew: logits first, then weights."""
    settings = DartsSettings(order, learning_rate=0.2, operation_learning_rate=3e-2)
    x = torch.randn(60, 2, dtype=torch.float64)
    data = x, torch.sin(3 * x[:, 0] + x[:, 1])
    network = make_choice(False).double()
    recipe = Recipe(pr.likelihoods.Gaussian(0.3, learn_noise=False).double(), batch_size=60)
    w = [p.detach().clone().requires_grad_() for p in network.parameters()]
    shapes = [tuple(p.shape) for p in w]
    assert shapes == [(8, 2), (8,), (1, 8), (1,)]
    edges = pr.find_edges(network, granularity="operation")
    torch.manual_seed(5)
    found, last = search_operations(network, edges, data, recipe, 3, settings)

    torch.manual_seed(5)
    train, held = split_examples(data, 0.5)
    a = torch.zeros(3).normal_(std=1e-3).requires_grad_()

    def loss(w, a, x, y):
        before = x @ w[0].T + w[1]
        gates = a.softmax(-1)
        after = gates[1] * before + gates[2] * torch.sin(before)
        outputs = (after @ w[2].T + w[3])[:, 0].float().double()
        return -torch.distributions.Normal(outputs, 0.3).log_prob(y).mean()

    adam = torch.optim.Adam([a], lr=3e-2, betas=(0.5, 0.999), weight_decay=1e-3)
    momentum = [torch.zeros_like(p) for p in w]
    for step in range(3):
        rate = 0.2 * (0.04 + 0.48 * (1 + math.cos(math.pi * step / 3)))
        inner = torch.autograd.grad(loss(w, a, *train), w, create_graph=True)
        unrolled = [p - rate * g for p, g in zip(w, inner, strict=True)] if order == "second" else w
        value = loss(unrolled, a, *held)
        (a.grad,) = torch.autograd.grad(value, [a])
        adam.step()
        gradient = torch.autograd.grad(loss(w, a.detach(), *train), w)
        norm = torch.stack([g.norm() for g in gradient]).norm()
        for p, g, m in zip(w, gradient, momentum, strict=True):
            m.mul_(0.9).add_(g * min(1.0, 5.0 / (float(norm) + 1e-6)) + 3e-4 * p.detach())
            p.data.sub_(rate * m)
    assert last == pytest.approx(float(value.detach()), rel=1e-5)
    torch.testing.assert_close(found["graph.a.h"], a.detach(), rtol=1e-4, atol=1e-7)
    for got, expected in zip(network.parameters(), w, strict=True):
        torch.testing.assert_close(got.detach(), expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.contract
@pytest.mark.parametrize("order", ["first", "second"])
def test_darts_finds_what_made_the_data(order):
    torch.manual_seed(0)
    x = torch.randn(400, 2)
    y = torch.sin(3 * x[:, 0] + x[:, 1])
    result = darts(
        make_choice,
        (x, y),
        recipe=Recipe(pr.likelihoods.Gaussian(0.3), batch_size=50, learning_rate=1e-2),
        num_epochs=40,
        num_epochs_after=60,
        settings=DartsSettings(order, operation_learning_rate=3e-2),
    )
    assert result.choice.operations == {"graph.a.h": "sine"}
    with torch.no_grad():
        assert float((result.network(x)[:, 0] - y).square().mean()) < 0.05
    assert [stage.kind for stage in result.history] == ["search", "retraining"]


@pytest.mark.contract
def test_the_control_is_one_random_architecture():
    results = [
        train_random_architecture(make, data(), recipe=RECIPE, num_epochs=2, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert results[0].choice == results[1].choice
    assert same(results[0].network.state_dict(), results[1].network.state_dict())
    assert [stage.kind for stage in results[0].history] == ["retraining"]

    def strongest(edges, probability):
        assert all(abs(float(p.sum()) - 1) < 1e-6 for p in probability.values())
        return strongest_operations(edges, probability)

    ruled = train_random_architecture(make, data(), recipe=RECIPE, num_epochs=1, rule=strongest)
    assert "none" not in ruled.choice.operations.values()

    def dead(edges, probability):
        return Architecture({g.name: g.labels[g.labels.index("none")] for g in edges.operations})

    def make_optional(full):
        return Graph({"x": 3, "y": 1}, [GraphEdge("x", "y", ("none", "linear"))], output="y")

    with pytest.raises(ArchitectureError, match="among 1000 random ones"):
        train_random_architecture(make_optional, data(), recipe=RECIPE, num_epochs=1, rule=dead)


@pytest.mark.contract
def test_short_trainings_may_be_a_share_of_a_pass(monkeypatch):
    seen, train = [], Recipe.train

    def counted(recipe, network, part, **settings):
        seen.append((len(part[0]), settings["num_epochs"]))
        return train(recipe, network, part, **settings)

    monkeypatch.setattr(Recipe, "train", counted)
    search_by_training(
        random_search,
        make,
        data(),
        recipe=RECIPE,
        num_queries=2,
        num_epochs_query=0.5,
        num_epochs_after=1,
        held_out=0.2,
    )
    assert seen[0] == (24, 1)  # of the 48 that are not held out
    assert seen[-1] == (60, 1)


@pytest.mark.contract
def test_none_is_never_strongest():
    edges = pr.find_edges(make_graph(), granularity="operation")
    probability = {
        "graph.a.h": torch.tensor([0.1, 0.2, 0.7]),
        "graph.h.y": torch.tensor([0.6, 0.4]),
        "graph.x.y": torch.tensor([0.99, 0.01]),
    }
    chosen = strongest_operations(edges, probability).operations
    assert chosen == {"graph.a.h": "tanh", "graph.h.y": "linear", "graph.x.y": "linear"}


@pytest.mark.exact
def test_a_controller_is_a_distribution():
    torch.manual_seed(0)
    numbers = [3, 2, 4]
    controller = Controller(numbers, num_hidden=8)
    for layer in controller.read:
        nn.init.normal_(layer.weight)
    places = itertools.product(*map(range, numbers))
    total = sum(float(controller(list(each))[1].detach().exp()) for each in places)
    assert total == pytest.approx(1.0, abs=1e-6)
    drawn, log_probability = controller()
    assert torch.allclose(controller(drawn)[1], log_probability)


@pytest.mark.statistical
def test_reinforcement_learns_what_is_rewarded():
    edges = pr.find_edges(make_graph(), granularity="operation")
    wanted = {"graph.a.h": "none", "graph.h.y": "linear_tanh", "graph.x.y": "linear"}

    def value(architecture):
        torch.rand(3)  # a measurement may draw
        return float(sum(architecture.operations[name] == label for name, label in wanted.items()))

    found = reinforce(edges, value, num_queries=400, seed=4)
    values = torch.tensor(found.values)
    # At random the mean is 4/3.
    assert float(values[:15].mean()) < 2
    assert float(values[-50:].mean()) > 2.5
    assert found.best().operations == wanted
    again = reinforce(edges, value, num_queries=400, seed=4)
    assert found.values == again.values
    shifted = reinforce(edges, lambda a: value(a) - 50, num_queries=400, seed=4)
    assert [v - 50 for v in found.values] == pytest.approx(shifted.values)


@pytest.mark.contract
@pytest.mark.parametrize(
    "method", [partial(evolution, population_size=3, tournament_size=2), random_search, reinforce]
)
def test_queries_are_short_trainings(method):
    settings = {
        "recipe": RECIPE,
        "num_queries": 6,
        "num_epochs_query": 10,
        "num_epochs_after": 20,
        "seed": 2,
    }
    result = search_by_training(method, make, data(), **settings)
    queries = result.history[:-1]
    assert len(queries) == 6
    assert {stage.kind for stage in queries} == {"search"}
    best = max(queries, key=lambda stage: stage.value)
    assert best.name == str(result.choice)
    by_name = {stage.name: stage.value for stage in queries}
    assert all(stage.value == by_name[stage.name] for stage in queries)
    assert "gate" not in dict(result.network.named_buffers())
    again = search_by_training(method, make, data(), **settings)
    assert again.choice == result.choice
    assert same(again.network.state_dict(), result.network.state_dict())


@pytest.mark.contract
def test_dead_architectures_are_not_trained():
    def dead(edges, evaluate, *, num_queries, seed):
        chosen = {g.name: "none" if "none" in g.labels else g.labels[0] for g in edges.operations}
        architecture = Architecture(chosen)
        value = evaluate(architecture)
        assert value == DEAD
        return QuerySearch((architecture,), (value,))

    settings = {"num_queries": 1, "num_epochs_query": 1, "num_epochs_after": 1}
    with pytest.raises(ArchitectureError, match="a connected architecture among 1 queries"):
        search_by_training(dead, make, data(), recipe=RECIPE, **settings)


@pytest.mark.contract
def test_single_paths_are_uniform_and_the_best_candidate_wins():
    fitted = train_shared(make(False), data(), recipe=RECIPE, num_epochs=20)
    for probability in fitted.posterior.operation_probability().values():
        assert torch.allclose(probability, torch.full_like(probability, 1 / probability.shape[-1]))
    start = make(False).state_dict()
    assert not same(fitted.posterior.network().state_dict(), start)
    settings = {"recipe": RECIPE, "num_epochs": 20, "num_candidates": 20, "held_out": 0.2}
    result = single_path(make, data(), num_epochs_after=30, **settings)
    untrained = single_path(make, data(), num_epochs_after=0, **settings)
    assert untrained.choice == result.choice
    assert untrained.history[-1].num_epochs == 0
    candidates = result.history[1:-1]
    assert max(candidates, key=lambda stage: stage.value).name == str(result.choice)
    assert [result.history[0].kind, result.history[-1].kind] == ["search", "retraining"]


@pytest.mark.exact
def test_examples_are_split_and_scored():
    x = torch.arange(10.0).unsqueeze(1)
    train, held = split_examples((x, x[:, 0]), 0.3)
    assert len(held[0]) == 3
    assert sorted(torch.cat([train[1], held[1]]).tolist()) == list(range(10))
    likelihood = pr.likelihoods.Gaussian(0.5, learn_noise=False)
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(torch.zeros(())).item()
    assert mean_log_likelihood(nn.Identity(), likelihood, (x, x[:, 0])) == pytest.approx(expected)


@pytest.mark.contract
def test_what_is_refused():
    edges = pr.find_edges(make_graph(), granularity="operation")
    with pytest.raises(ValueError, match="order from"):
        DartsSettings("third")
    with pytest.raises(ValueError, match=r"held_out in \(0, 1\), but got 1"):
        DartsSettings(held_out=1.0)
    with pytest.raises(ValueError, match="num_queries >= 1, but got 0"):
        reinforce(edges, lambda a: 0.0, num_queries=0)
    with pytest.raises(ValueError, match=r"baseline_decay in \[0, 1\), but got 1"):
        reinforce(edges, lambda a: 0.0, num_queries=2, baseline_decay=1.0)
    with pytest.raises(ValueError, match="finite"):
        reinforce(edges, lambda a: float("nan"), num_queries=2)
    with pytest.raises(ValueError, match="num_candidates >= 1"):
        single_path(make, data(), recipe=RECIPE, num_epochs=1, num_candidates=0, num_epochs_after=1)
    with pytest.raises(ValueError, match="in each part at held_out=10%, but got 2 inputs"):
        split_examples((torch.zeros(2, 1), torch.zeros(2)), 0.1)
