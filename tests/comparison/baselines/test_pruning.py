"""Baselines that prune a network: what is pruned, what stays, what it costs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.comparison.baselines import (
    Recipe,
    configurations,
    dense,
    filter_pruning,
    fit_and_prune,
    lottery_ticket,
    magnitude_pruning,
    random_ticket,
    ticket_rounds,
)
from pyro_relevance.comparison.baselines.filter_pruning import prune_filters
from pyro_relevance.comparison.baselines.magnitude import kept_weights, smallest_weights
from pyro_relevance.comparison.baselines.recipe import StepTimer, seeded_network
from pyro_relevance.edges.size import count_cost
from pyro_relevance.training.plain import with_zeros, zero_entries
from tests.small_fits import regression, same

RECIPE = Recipe(pr.likelihoods.Gaussian(0.5), batch_size=16, learning_rate=1e-2)
STILL = Recipe(pr.likelihoods.Gaussian(0.5), batch_size=48, learning_rate=1e-12)
"""A training that changes nothing."""


def make():
    return pr.networks.MLP(4, [10, 6], 1)


def error(network, data):
    with torch.no_grad():
        return float((network(data[0])[:, 0] - data[1]).square().mean())


@pytest.mark.contract
def test_dense_is_trained_and_counted():
    result = dense(make, regression(), recipe=RECIPE, num_epochs=20, seed=1)
    assert error(result.network, regression()) < 0.5 * error(seeded_network(make, 1), regression())
    assert result.choice is None
    assert result.cost == count_cost(make(), torch.zeros(2, 4))
    assert [(s.name, s.kind, s.num_epochs) for s in result.history] == [("dense", "training", 20)]
    assert result.seconds["training"] == result.history[0].seconds > 0
    assert result.seconds["retraining"] == 0
    again = dense(make, regression(), recipe=RECIPE, num_epochs=20, seed=1)
    assert same(result.network.state_dict(), again.network.state_dict())


@pytest.mark.exact
def test_the_smallest_weights_go():
    network = make()
    magnitudes = torch.cat([p.detach().abs().view(-1) for p in network.parameters() if p.ndim > 1])
    bound = magnitudes.sort(descending=True).values[29]
    before = copy.deepcopy(network.state_dict())
    sparse = with_zeros(network, smallest_weights(network, 30 / len(magnitudes)))
    assert list(sparse.state_dict()) == list(before)
    assert same(before, network.state_dict())
    for old, new in zip(network.parameters(), sparse.parameters(), strict=True):
        kept = (old.abs() >= bound) if old.ndim > 1 else torch.ones_like(old, dtype=torch.bool)
        assert torch.equal(new, old * kept)
    assert kept_weights(sparse).num_kept == 30


@pytest.mark.exact
def test_each_layer_can_have_its_own_density():
    network = make()
    sparse = with_zeros(network, smallest_weights(network, {"hidden1": 0.25, "output": 0.5}))
    kept = {name: int(keep.sum()) for name, keep in kept_weights(sparse).items()}
    assert kept == {"hidden1.weight": 10, "hidden2.weight": 60, "output.weight": 3}


@pytest.mark.exact
def test_magnitude_pruning_goes_down_in_rounds_and_retrains():
    run = functools.partial(
        magnitude_pruning,
        make,
        regression(),
        density=0.25,
        num_epochs=20,
        num_epochs_round=10,
    )
    sizes = []
    for num_rounds in (1, 2):
        result = run(recipe=RECIPE, num_rounds=num_rounds)
        sizes.append(result.choice.num_kept)
        kinds = [stage.kind for stage in result.history]
        assert kinds == ["training", *["search"] * (num_rounds - 1), "retraining"]
    assert sizes == [26, 26]  # a quarter of 106 weights
    assert result.cost.num_nonzero == 26 + 17
    untrained = run(recipe=dataclasses.replace(RECIPE, retraining_rate=1e-9))
    assert error(result.network, regression()) < error(untrained.network, regression())


@pytest.mark.exact
def test_tickets_go_back_to_their_first_weights():
    first = seeded_network(make, 3)
    rounds = ticket_rounds(make, regression(), recipe=STILL, num_epochs=1, seed=3)
    for number, ticket in zip(range(4), rounds, strict=False):
        shares = {"hidden1.weight": 0.8, "hidden2.weight": 0.8, "output.weight": 0.9}
        for name, parameter in ticket.trained.network.named_parameters():
            start = first.get_parameter(name)
            if name not in shares:
                assert torch.allclose(parameter, start, atol=1e-9)
                continue
            assert torch.allclose(parameter, start * ticket.mask[name], atol=1e-9)
            left = int(shares[name] ** number * start.numel() + 1e-6)
            assert int(ticket.mask[name].sum()) == left
            # Nothing was trained, so the largest first weights are those that are left.
            bound = start.abs().view(-1).sort(descending=True).values[left - 1]
            assert torch.equal(ticket.mask[name], start.abs() >= bound)


@pytest.mark.exact
def test_late_rewinding_goes_back_to_trained_weights():
    early = RECIPE.train(seeded_network(make, 3), regression(), num_epochs=5, seed=3).network
    late = Recipe(RECIPE.likelihood, batch_size=16, learning_rate=1e-2)
    rounds = ticket_rounds(
        make, regression(), recipe=late, num_epochs=5, num_epochs_early=5, seed=3
    )
    next(rounds)
    ticket = next(rounds)
    zeros = {name: ~keep for name, keep in ticket.mask.items()}
    start = with_zeros(early, zeros)
    again = late.train(start, regression(), num_epochs=5, zeros=zero_entries(start), seed=3)
    assert same(again.network.state_dict(), ticket.trained.network.state_dict())


@pytest.mark.contract
def test_a_winning_ticket_and_its_control():
    settings = {"recipe": RECIPE, "num_epochs": 5, "seed": 0}
    winner = lottery_ticket(make, regression(), density=0.3, num_rounds=2, **settings)
    assert winner.choice.density <= 0.3
    assert [stage.kind for stage in winner.history] == ["training", "search", "retraining"]
    control = random_ticket(make, regression(), mask=winner.choice, **settings)
    assert control.choice == winner.choice
    assert not same(control.network.state_dict(), winner.network.state_dict())
    longer = lottery_ticket(make, regression(), density=0.3, **settings)
    assert longer.choice.density <= 0.3
    assert len(longer.history) == 7  # 0.8^6 is below 0.3 even with the slower last layer


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["mlp", "lenet", "resnet"])
def test_filters_are_those_of_the_smallest_norm_and_pruned_as_we_prune(kind):
    network, x = {
        "mlp": (make(), torch.randn(3, 4)),
        "lenet": (pr.networks.LeNet5Caffe(), torch.randn(3, 1, 28, 28)),
        "resnet": (pr.networks.CifarResNet(1), torch.randn(3, 3, 32, 32)),
    }[kind]
    network.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    limit = count_cost(network, x).num_macs // 2
    small, mask = prune_filters(network, x, num_macs=limit)
    assert same(before, network.state_dict())
    assert count_cost(small, x).num_macs <= limit
    edges = pr.find_edges(network, example_input=x)
    for name, keep in mask.items():
        layer = network.get_submodule(name.removesuffix(".units"))
        norms = layer.weight.detach().abs().flatten(1).sum(1)
        assert norms[keep].min() >= (norms[~keep].max() if bool((~keep).any()) else 0)
    assert bool((~next(iter(mask.values()))).any())
    own = pr.prune(network, edges, mask.completed(edges), example_input=x)
    assert torch.equal(own(x), small(x))
    # One thousandth less is pruned, and the limit is broken: it is used as far as it goes.
    if kind == "lenet":
        assert count_cost(small, x).num_macs > 0.9 * limit


@pytest.mark.contract
def test_filter_pruning_retrains():
    result = filter_pruning(
        make, regression(), recipe=RECIPE, num_epochs=10, num_epochs_after=20, num_parameters=60
    )
    assert result.cost.num_parameters <= 60
    unretrained = filter_pruning(
        make, regression(), recipe=RECIPE, num_epochs=10, num_epochs_after=0, num_parameters=60
    )
    assert error(result.network, regression()) < error(unretrained.network, regression())
    assert result.choice == unretrained.choice


@pytest.mark.contract
@pytest.mark.parametrize("name", list(configurations(-1.0)))
def test_configurations_keep_the_limit(name):
    configuration = configurations(-1.0, units=("input", "unit"))[name]
    result = fit_and_prune(
        make,
        regression(),
        recipe=RECIPE,
        configuration=configuration,
        num_epochs=20,
        num_epochs_after=20,
        num_parameters=60,
    )
    assert result.cost.num_nonzero <= 60
    groups = (
        {"inputs", "hidden1.units", "hidden2.units"}
        if configuration.granularity != ("weight",)
        else {"hidden1.weight", "hidden2.weight", "output.weight"}
    )
    assert set(result.choice) == groups
    assert [stage.kind for stage in result.history] == ["search", "retraining"]
    assert error(result.network, regression()) < 0.7 * error(seeded_network(make, 0), regression())


@pytest.mark.contract
def test_a_timer_stops_a_training():
    timer = StepTimer(6)
    timer.most = 6
    trained = RECIPE.train(make(), regression(), num_epochs=50, callbacks=[timer])
    assert len(timer.times) == 7
    assert 0 < timer.per_step() <= trained.seconds
    with pytest.raises(ValueError, match="at least two steps"):
        StepTimer().per_step()
    same_network = make()
    assert RECIPE.train(same_network, regression(), num_epochs=0).network is same_network


@pytest.mark.contract
def test_what_is_refused(monkeypatch):
    data = regression()
    with pytest.raises(ValueError, match=r"a density in \(0, 1\] of the network, but got 0"):
        magnitude_pruning(make, data, recipe=RECIPE, density=0, num_epochs=1, num_epochs_round=1)
    with pytest.raises(ValueError, match=r"layers out of \['hidden1', 'hidden2', 'output'\]"):
        smallest_weights(make(), {"conv1": 0.5})
    with pytest.raises(ValueError, match=r"a density in \(0, 1\], but got 2"):
        lottery_ticket(make, data, recipe=RECIPE, density=2, num_epochs=1)
    with pytest.raises(ValueError, match=r"share in \[0, 1\), but got 1"):
        next(ticket_rounds(make, data, recipe=RECIPE, num_epochs=1, share=1.0))
    with pytest.raises(ValueError, match="exactly one of num_parameters and num_macs"):
        prune_filters(make(), data[0])
    never = "num_epochs=0 would be refused, if it came to that"
    for method in (filter_pruning, fit_and_prune):
        more = {"configuration": configurations(-1.0)["relevance of weights"]}
        with pytest.raises(ValueError, match="exactly one of num_parameters and num_macs"):
            method(
                make,
                data,
                recipe=RECIPE,
                num_epochs=never,
                num_epochs_after=1,
                **(more if method is fit_and_prune else {}),
            )
    with pytest.raises(ValueError, match="a limit that can be reached, but got 3"):
        prune_filters(make(), data[0], num_parameters=3)
    with pytest.raises(ValueError, match="score from"):
        pr.baselines.Configuration(("unit",), score="size")
    with pytest.raises(ValueError, match="kl_weight > 0, but got 0"):
        pr.baselines.Configuration(("unit",), kl_weight=0)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"pyro-relevance\[baselines\]"):
        filter_pruning(
            make, data, recipe=RECIPE, num_epochs=1, num_epochs_after=1, num_parameters=60
        )


@pytest.mark.contract
def test_a_network_with_batch_norm_can_be_pruned():
    def make_normed():
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    result = magnitude_pruning(
        make_normed, regression(), recipe=RECIPE, density=0.5, num_epochs=5, num_epochs_round=5
    )
    assert result.choice.num_kept == 20
    small, mask = prune_filters(make_normed().eval(), regression()[0], num_parameters=30)
    assert small[1].num_features == int(mask["0.units"].sum()) < 8
