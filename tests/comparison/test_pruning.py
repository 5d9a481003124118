"""Controls of methods that prune units: what they are given, and what they have to learn."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.comparison import METHODS, Comparison, make_task, run_one
from pyro_relevance.comparison import runs as module
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.edges.size import num_macs

SHORT = {"num_epochs": 2, "num_epochs_after": 2}


@pytest.fixture(scope="module")
def task():
    return make_task("boston")


def widths(network):
    return [layer.out_features for layer in network.modules() if hasattr(layer, "out_features")]


@pytest.mark.exact
def test_same_widths_are_those_of_the_posterior_and_nothing_else(task):
    found = METHODS["relevance-units"].run(task, SHORT, 0)["relevance-units"]
    control = METHODS["same-widths"].run(task, SHORT, 0)["same-widths"]
    assert control.choice == found.choice
    assert widths(control.network) == widths(found.network)
    assert control.cost.num_parameters == found.cost.num_parameters <= 200
    assert [(stage.kind, stage.num_epochs) for stage in control.history] == [
        ("given", 2),
        ("training", 2),
    ]
    assert set(control.seconds) == {"search", "training", "retraining"}
    assert sum(control.seconds.values()) == control.history[1].seconds
    # Its first weights are not those that the posterior has learned.
    still = dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, learning_rate=1e-12))
    first, others = (
        METHODS[name].run(still, SHORT, 0)[name].network.named_parameters()
        for name in ("same-widths", "relevance-units")
    )
    first, others = dict(first), dict(others)
    assert first.keys() == others.keys()
    assert not any(torch.allclose(first[name], others[name]) for name in first)


@pytest.mark.exact
def test_uniform_widths_prune_the_same_share_of_each_layer(task):
    def make():
        return pr.networks.MLP(13, [60, 20], 1)

    limited = dataclasses.replace(task, make_network=make, num_parameters=500)
    result = METHODS["uniform-widths"].run(limited, {"num_epochs": 1}, 0)["uniform-widths"]
    first, second, _ = widths(result.network)
    assert first == pytest.approx(3 * second, abs=3)
    assert 450 <= result.cost.num_parameters <= 500
    assert result.choice is None
    macs = num_macs(make(), task.data.train[0][:1]) // 2
    limited = dataclasses.replace(limited, num_macs=macs)
    result = METHODS["uniform-widths"].run(limited, {"num_epochs": 1}, 0)["uniform-widths"]
    assert 0.9 * macs <= result.cost.num_macs <= macs
    # Of a network that is drawn again: not the largest rows of that built by people.
    still = dataclasses.replace(
        limited, recipe=dataclasses.replace(task.recipe, learning_rate=1e-12)
    )
    small = METHODS["uniform-widths"].run(still, {"num_epochs": 1}, 0)["uniform-widths"].network
    large = seeded_network(make, 0)
    rows = {tuple(row) for row in large.hidden1.weight.tolist()}
    assert not rows & {tuple(row) for row in small.hidden1.weight.tolist()}


@pytest.mark.exact
def test_the_time_of_what_a_control_is_given_does_not_count(tmp_path, monkeypatch):
    method = METHODS["same-widths"]

    def run(task, plan, seed):
        (result,) = method.run(task, plan, seed).values()
        given = dataclasses.replace(result.history[0], seconds=500.0)
        return {"same-widths": dataclasses.replace(result, history=(given, result.history[1]))}

    fixed = dataclasses.replace(method, plan=lambda *_: SHORT, run=run)
    monkeypatch.setattr(module, "METHODS", {"same-widths": fixed})
    clock = iter((0.0, 60.0, 100.0, 700.0))  # planning for 60 seconds, running for 600
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    comparison = Comparison("boston", ("same-widths",), 1.0, num_seeds=1)
    metrics = run_one(comparison, "same-widths", 0, tmp_path)["same-widths"]["metrics"]
    assert metrics["minutes_running"] == pytest.approx(100 / 60)
    assert metrics["minutes"] == pytest.approx(160 / 60)


@pytest.mark.exact
def test_a_limit_of_the_users_holds_for_the_small_network_too():
    task = make_task("boston", num_parameters=100)
    assert task.num_parameters == 100
    assert sum(p.numel() for p in task.make_small_network().parameters()) == 91  # 6 units of 15, 1
    assert sum(p.numel() for p in make_task("boston").make_small_network().parameters()) == 196


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("boston", 15, "at least 16 parameters"),
        ("boston", 0, "at least 16 parameters"),
        ("boston", 751, "below the 751 parameters"),
        ("cifar10", 1000, "'boston' or 'mnist'"),
    ],
)
def test_a_limit_that_no_network_meets_is_refused(name, limit, words):
    with pytest.raises(ValueError, match=words):
        make_task(name, num_parameters=limit)


@pytest.mark.exact
def test_runs_under_another_limit_are_other_runs():
    one = Comparison("boston", ("dense",), 1.0)
    assert "num_parameters" not in one.about()  # as in folders of before
    assert dataclasses.replace(one, num_parameters=100).about()["num_parameters"] == 100
