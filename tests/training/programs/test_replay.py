"""A recorded step gives the numbers of the step that was recorded, bit by bit, or is not used."""

from __future__ import annotations

import random

import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import pyro_relevance as pr
from pyro_relevance import likelihoods, priors, relaxations, schedules
from pyro_relevance.model.guides import LowRankGuide
from pyro_relevance.training.programs import replay
from tests.small_fits import make_model, make_network, quick_fit, regression, same

NUM_EPOCHS = 20  # of 3 or 4 steps: enough for every kind of step to be recorded
WARMUP = schedules.Schedules(kl_weight=schedules.warmup(0.5))


def _compare(programs, model=None, data=None, **settings):
    """Fit with and without replay, require the same bits, return the number of recordings."""
    settings = {"num_epochs": NUM_EPOCHS, "schedules": WARMUP, **settings}
    plain = quick_fit(model, data, replay=False, **settings)
    assert not programs
    fit = quick_fit(model, data, replay=True, **settings)
    assert same(fit.posterior.state, plain.posterior.state)
    assert (fit.history.loss == plain.history.loss).all()
    return programs[0].num_recordings


COUNTS = torch.arange(48) % 3
MODELS = {
    "default": {},
    "weights": {"granularity": ("input", "weight")},
    "nested": {"granularity": ("unit", "weight")},
    "hard concrete": {"relaxation": relaxations.HardConcreteGate()},
    "straight through": {"relaxation": relaxations.StraightThrough()},
    "hierarchical": {"gate_prior": priors.HierarchicalPrior()},
    "description length": {"gate_prior": priors.DescriptionLengthPrior()},
    "no gates": {"gate_prior": None},
    "gaussian": {"weight_prior": priors.GaussianWeights()},
    "ard": {"weight_prior": priors.ArdWeights()},
    "horseshoe": {"weight_prior": priors.HorseshoeWeights()},
    "log uniform": {"gate_prior": None, "weight_prior": priors.LogUniformWeights()},
    "student t": {"likelihood": likelihoods.StudentT()},
    "fixed noise": {"likelihood": likelihoods.Gaussian(0.3, learn_noise=False)},
    "poisson": {"likelihood": likelihoods.Poisson()},
    "bernoulli": {"likelihood": likelihoods.Bernoulli()},
    "batch norm": {"network": make_network(batch_norm=True)},
    "float64": {"network": make_network().double()},
}


# One chain and several are different programs; what a model adds to them is seen with two.
ALONE = ("default", "weights", "hierarchical", "horseshoe", "batch norm")


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "num_chains"),
    [(name, 2) for name in MODELS]
    + [pytest.param(n, 1, marks=() if n in ALONE else pytest.mark.slow) for n in MODELS],
)
def test_every_model_replays_the_same_bits(programs, name, num_chains):
    settings = MODELS[name]
    model = make_model(**settings)
    x, y = regression(dtype=next(model.network.parameters()).dtype)
    if isinstance(model.likelihood, likelihoods.Poisson | likelihoods.Bernoulli):
        y = COUNTS.clamp(max=1).float()
    assert _compare(programs, model, (x, y), num_chains=num_chains) == 2


FITS = {
    "per example": {"noise": "per_example"},
    "particles": {"num_particles": 2},
    "low rank": {"guide": LowRankGuide},
    "all rows": {"batch_size": None, "num_epochs": 60},
    "chain data": {"data": [regression(seed=0), regression(seed=1)], "num_chains": 2},
}


@pytest.mark.exact
@pytest.mark.parametrize("settings", FITS.values(), ids=FITS.keys())
def test_every_fit_replays_the_same_bits(programs, settings):
    assert _compare(programs, **settings) == 2


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
def test_a_smaller_last_batch_is_recorded_apart(programs, num_chains):
    settings = {"batch_size": 20, "num_epochs": 80, "schedules": schedules.Schedules()}
    # Without warm-up after it: both sizes. Before, as often as there is time: both sizes too.
    assert _compare(programs, num_chains=num_chains, **settings) == 4


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 3])
@pytest.mark.parametrize("num_rows", [448, 455], ids=["even", "smaller last batch"])
def test_by_default_nearly_all_steps_are_replayed(programs, num_chains, num_rows):
    data = (torch.randn(num_rows, 13), torch.randn(num_rows))
    model = make_model(pr.networks.MLP(13, (50,), 1), num_data=num_rows)
    fit = pr.fit(model, data, num_epochs=140, batch_size=32, num_chains=num_chains)
    assert fit.num_steps in (1960, 2100)
    assert programs[0].num_replayed >= 0.95 * fit.num_steps


@pytest.mark.exact
def test_a_resumed_run_is_replayed_too_and_equal(programs, tmp_path):
    def interrupt(state):
        if state.step == 40:
            raise KeyboardInterrupt

    settings = {"num_epochs": 60, "schedules": WARMUP}
    where = pr.Checkpoint(tmp_path / "run", interval=0.0)
    with pytest.raises(KeyboardInterrupt):
        quick_fit(checkpoint=where, callbacks=[interrupt], **settings)
    resumed = quick_fit(checkpoint=where, **settings)
    plain = quick_fit(replay=False, **settings)
    assert same(resumed.posterior.state, plain.posterior.state)
    assert (resumed.history.loss == plain.history.loss).all()
    first, second = programs
    assert first.num_taken == 40
    assert first.num_replayed == 35
    assert second.num_taken == 180
    assert 180 - 40 - 5 <= second.num_replayed < 180


class _Ticks:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self):
        self.now = 0

    def thread_time(self):
        self.now += 1
        return self.now


@pytest.mark.exact
@pytest.mark.parametrize(("num_epochs", "num_recordings"), [(5, 0), (12, 2), (30, 4)])
def test_what_is_recorded_follows_from_cost_and_steps_left(
    programs, monkeypatch, num_epochs, num_recordings
):
    # A step and a recording take a second, so that a recording is worth more than ten steps. Eleven
    # steps an epoch, the last with one row. Each recording serves in and after the warm-up.
    monkeypatch.setattr(replay, "time", _Ticks())
    x, y = regression(201)
    quick_fit(make_model(num_data=201), (x, y), batch_size=20, num_epochs=num_epochs)
    assert programs[0].num_recordings == num_recordings


@pytest.mark.exact
def test_a_kind_that_comes_late_is_asked_about_again(programs):
    late = schedules.Schedules(kl_weight=lambda progress: 1.0 if progress < 0.9 else 0.5)
    fit = quick_fit(num_epochs=400, schedules=late)
    assert programs[0].num_recordings == 2
    assert programs[0].num_replayed == fit.num_steps - 10


@pytest.mark.exact
def test_classes(programs):
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
    model = make_model(network, likelihood=likelihoods.Categorical())
    assert _compare(programs, model, (regression()[0], COUNTS)) == 2


@pytest.mark.exact
def test_a_frozen_parameter_stays(programs):
    network = make_network()
    network[0].weight.requires_grad_(False)
    assert _compare(programs, make_model(network)) == 2


class _Branches(likelihoods.Gaussian):
    """Its control flow depends on values."""

    def forward(self, outputs):
        return super().forward(outputs if outputs.detach().mean() > 0 else 0.9 * outputs)


class _Counts(likelihoods.Gaussian):
    """It computes something else each time, which no tensor shows."""

    calls = 0

    def forward(self, outputs):
        type(self).calls += 1
        return super().forward(outputs * (1 + 0.01 * type(self).calls))


class _Draws(likelihoods.Gaussian):
    """It draws from a generator that is not torch's."""

    def forward(self, outputs):
        return super().forward(outputs * (1 + 0.1 * random.random()))


@pytest.mark.contract
@pytest.mark.parametrize("likelihood", [_Branches, _Counts, _Draws])
def test_a_step_that_changes_is_not_replayed(programs, likelihood):
    model = make_model(likelihood=likelihood())
    if likelihood is _Branches:
        assert _compare(programs, model) == 0
    else:
        quick_fit(model, num_epochs=NUM_EPOCHS, replay=True)
        assert programs[0].num_recordings == 0


@pytest.mark.contract
@pytest.mark.parametrize("settings", [{"guide": AutoNormal}, {"replay": False}], ids=str)
def test_who_is_not_recorded(programs, settings):
    quick_fit(num_epochs=NUM_EPOCHS, **settings)
    assert not programs
