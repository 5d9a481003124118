"""Each method has the same time, by a clock that the test sets: a step takes a quarter second."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest

from pyro_relevance.comparison import METHODS, Comparison, make_task, pace, pruning, run_one
from pyro_relevance.comparison import runs as module
from pyro_relevance.comparison.baselines import Recipe, lottery_ticket, searching
from pyro_relevance.comparison.baselines import recipe as recipes
from pyro_relevance.comparison.baselines.recipe import HEADROOM, length
from pyro_relevance.comparison.pruning import PRUNING
from pyro_relevance.training import run as loop
from tests.comparison.baselines.test_pruning import RECIPE, make
from tests.small_fits import regression

BUDGET = 60.0
NETWORKS = [name for name in PRUNING if name != "lottery-ticket"]
"""Methods with one row each."""


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=10.0, step=0.25)
    fake = SimpleNamespace(perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    for place in (module, pace, recipes, pruning, searching, loop):
        monkeypatch.setattr(place, "time", fake)
    take_step = loop.TrainingRun.take_step

    def timed(run):
        losses = take_step(run)
        clock.now += clock.step
        return losses

    monkeypatch.setattr(loop.TrainingRun, "take_step", timed)
    return clock


def slower_than_planned(monkeypatch, clock, name, factor):
    """The machine is slower by a factor once the plan is made."""
    method = METHODS[name]

    def plan(*arguments):
        planned = method.plan(*arguments)
        clock.step *= factor
        return planned

    replaced = dataclasses.replace(method, plan=plan)
    monkeypatch.setattr(module, "METHODS", {**METHODS, name: replaced})


@pytest.mark.exact
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("name", [*NETWORKS, "random-architecture"])
def test_each_method_uses_its_time(tmp_path, monkeypatch, clock, name, factor):
    slower_than_planned(monkeypatch, clock, name, factor)
    comparison = Comparison("boston", (name,), BUDGET / 60, num_seeds=1)
    content = run_one(comparison, name, 0, tmp_path)[name]
    seconds = 60 * content["metrics"]["minutes_running"]
    assert 0.95 * BUDGET <= seconds <= 1.05 * BUDGET
    stages = [stage for stage in content["stages"] if stage["kind"] != "given"]
    assert sum(stage["seconds"] for stage in stages) == pytest.approx(seconds)
    steps = math.ceil(455 / 100)
    for stage in content["stages"]:
        assert stage["num_epochs"] * steps * clock.step == pytest.approx(stage["seconds"])


@pytest.mark.exact
@pytest.mark.parametrize("factor", [0.6, 1.7])
@pytest.mark.parametrize("name", ["random-search", "evolution", "reinforce"])
def test_queries_share_the_time_that_they_have(tmp_path, monkeypatch, clock, name, factor):
    slower_than_planned(monkeypatch, clock, name, factor)
    comparison = Comparison("boston", (name,), BUDGET / 60, num_seeds=1)
    content = run_one(comparison, name, 0, tmp_path)[name]
    assert 60 * content["metrics"]["minutes_running"] == pytest.approx(BUDGET, rel=0.05)
    *queries, final = [stage["seconds"] for stage in content["stages"]]
    assert len(queries) == content["plan"]["num_queries"]
    measured = [seconds for seconds in queries if seconds > 0]  # those known have no training
    if name == "random-search" and len(measured) == len(queries):
        assert measured == pytest.approx([0.6 * BUDGET / len(queries)] * len(queries), abs=0.5)
    assert sum(queries) <= 0.62 * BUDGET
    assert final >= 0.38 * BUDGET


@pytest.mark.exact
@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_shares_of_the_time_are_those_of_the_plan(tmp_path, monkeypatch, clock, factor):
    shares = {
        "magnitude": [0.4, 0.2, 0.2, 0.2],
        "filters": [0.4, 0.6],
        "relevance-weights": [0.6, 0.4],
    }
    for name, expected in shares.items():
        clock.step = 0.25
        slower_than_planned(monkeypatch, clock, name, factor)
        comparison = Comparison("boston", (name,), BUDGET / 60, num_seeds=1)
        stages = run_one(comparison, name, 0, tmp_path)[name]["stages"]
        found = [stage["seconds"] / BUDGET for stage in stages]
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.exact
def test_tickets_share_the_time_and_the_control_has_that_of_the_last(tmp_path, monkeypatch, clock):
    slower_than_planned(monkeypatch, clock, "lottery-ticket", 1.5)
    comparison = Comparison("boston", ("lottery-ticket",), BUDGET / 60, num_seeds=1)
    rows = run_one(comparison, "lottery-ticket", 0, tmp_path)
    for row in rows.values():
        stages = [stage["seconds"] for stage in row["stages"]]
        assert stages == pytest.approx([BUDGET / 7] * 7, rel=0.05)
        assert 60 * row["metrics"]["minutes_running"] == pytest.approx(BUDGET, rel=0.05)


@pytest.mark.exact
def test_a_training_is_as_long_as_its_time_or_its_epochs(clock):
    assert length(3.0, math.inf) == {"num_epochs": 3.0, "max_seconds": math.inf}
    assert length(3.0, 15.0) == {"num_epochs": HEADROOM * 3.0, "max_seconds": 5.0}
    recipe = dataclasses.replace(RECIPE, deadline=30.0)
    assert recipe.until(1.0) == 30.0
    assert recipe.until(0.25) == 15.0
    assert RECIPE.until(0.25) == math.inf
    for until, steps in ((11.0, 4), (10.0, 1), (-5.0, 1), (1000.0, HEADROOM * 6)):
        clock.now = 10.0
        # Three steps in an epoch.
        trained = RECIPE.train(make(), regression(), num_epochs=2, until=until)
        assert trained.num_epochs == pytest.approx(steps / 3)
        assert trained.seconds == steps * 0.25
    assert RECIPE.train(make(), regression(), num_epochs=2).num_epochs == 2
    assert RECIPE.train(make(), regression(), num_epochs=0).num_epochs == 0


@pytest.mark.exact
def test_all_methods_retrain_at_the_rate_of_the_recipe(monkeypatch, clock):
    """Where that is nothing, the weights of the last training are those it starts from."""
    rates = []
    real = Recipe.train

    def train(recipe, network, data, **settings):
        rates.append((settings["name"], settings.get("retraining", False)))
        return real(recipe, network, data, **settings)

    monkeypatch.setattr(Recipe, "train", train)
    task = make_task("boston")
    for name in ("magnitude", "filters", "relevance-weights", "relevance-units", "sparse-vd"):
        plan = {"num_epochs": 1, "num_epochs_after": 1}
        if name == "magnitude":
            plan = {"num_epochs": 1, "num_epochs_round": 1, "num_rounds": 1}
        METHODS[name].run(task, plan, 0)
    assert [name for name, retraining in rates if not retraining] == ["dense", "dense"]
    assert [name for name, retraining in rates if retraining] == ["round 1", *["retraining"] * 4]
    still = dataclasses.replace(RECIPE, retraining_rate=1e-12)
    network = make()
    trained = real(still, network, regression(), num_epochs=5, retraining=True)
    for name, weights in trained.network.named_parameters():
        assert weights.detach() == pytest.approx(network.get_parameter(name).detach(), abs=1e-6)


@pytest.mark.contract
def test_tickets_need_a_number_of_rounds_to_share_the_time(clock):
    recipe = dataclasses.replace(RECIPE, deadline=20.0)
    with pytest.raises(ValueError, match="num_rounds where the recipe has a deadline"):
        lottery_ticket(make, regression(), recipe=recipe, density=0.3, num_epochs=1)
