"""A recorded step gives the numbers of the step that was recorded, bit by bit, or is not used."""

from __future__ import annotations

import random

import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_relevance import likelihoods, priors, relaxations, schedules
from pyro_relevance.model.guides import LowRankGuide
from pyro_relevance.training.programs.recording import record
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
def test_only_what_is_repeated_often_is_recorded(programs):
    quick_fit(batch_size=20, num_epochs=NUM_EPOCHS)
    assert programs.pop().num_recordings == 0
    fit = quick_fit(batch_size=20, num_epochs=520)
    assert fit.num_steps == 1560  # a third of them with the smaller last batch
    assert programs[0].num_recordings == 1


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


# Recordings


@pytest.mark.exact
def test_a_recording_draws_anew_and_changes_in_place():
    total = torch.zeros(3)

    def function(x):
        noise = torch.rand(3)
        total.add_(x)
        return x.t().t() * noise.view(3), torch.ones(3) + 1 + x

    repeated = record(function, [torch.ones(3)])
    total.zero_()
    torch.manual_seed(0)
    first, shifted = repeated(torch.full((3,), 2.0))
    second, _ = repeated(torch.full((3,), 2.0))
    torch.manual_seed(0)
    assert torch.equal(first, 2 * torch.rand(3))
    assert torch.equal(second, 2 * torch.rand(3))
    assert torch.equal(total, torch.full((3,), 4.0))
    assert torch.equal(shifted, torch.full((3,), 4.0))


@pytest.mark.exact
def test_a_constant_that_is_written_to_is_made_anew():
    def function(x):
        buffer = torch.zeros(2)
        buffer.view(2).add_(x)
        return (buffer * 1.0,)

    repeated = record(function, [torch.ones(2)])
    assert torch.equal(repeated(torch.ones(2))[0], torch.ones(2))
    assert torch.equal(repeated(torch.ones(2))[0], torch.ones(2))


@pytest.mark.exact
def test_numbers_that_have_no_text():
    def function(x):
        return (x.clamp(-float("inf"), float("inf")).masked_fill(x > 0, float("nan")),)

    (value,) = record(function, [torch.ones(2)])(torch.tensor([-1.0, 1.0]))
    assert value[0] == -1.0
    assert value[1].isnan()


@pytest.mark.contract
def test_values_cannot_be_read():
    with pytest.raises(RuntimeError):
        record(lambda x: (x if x.sum() > 0 else -x,), [torch.ones(2)])
