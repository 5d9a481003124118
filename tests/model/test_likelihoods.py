"""Likelihoods: densities, means, shapes, and the way to a file and back."""

from __future__ import annotations

import json
import math
import re

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional as F

from pyro_relevance import likelihoods
from tests.bounds import assert_mean

ALL = [
    likelihoods.Gaussian(0.7, minimum_scale=0.1),
    likelihoods.Gaussian(heteroscedastic=True),
    likelihoods.StudentT(5.0, noise_scale=0.4),
    likelihoods.Categorical(),
    likelihoods.Bernoulli(),
    likelihoods.Poisson(),
]


def name_of(likelihood):
    return type(likelihood).__name__


# Densities.


@pytest.mark.exact
def test_gaussian_density():
    outputs, y = torch.randn(6, 1), torch.randn(6)
    density = likelihoods.Gaussian(0.7, minimum_scale=0.1)(outputs).log_prob(y)
    expected = scipy.stats.norm.logpdf(y, outputs[:, 0], 0.8)
    torch.testing.assert_close(density.detach(), torch.from_numpy(expected).float())


@pytest.mark.exact
def test_student_t_density():
    outputs, y = torch.randn(6, 1), 3 * torch.randn(6)
    density = likelihoods.StudentT(5.0, noise_scale=0.7)(outputs).log_prob(y)
    expected = scipy.stats.t.logpdf(y, 5.0, outputs[:, 0], 0.7)
    torch.testing.assert_close(density.detach(), torch.from_numpy(expected).float())


@pytest.mark.exact
@pytest.mark.parametrize("kind", [likelihoods.Gaussian, likelihoods.StudentT])
def test_second_half_of_the_outputs_is_the_logarithm_of_a_bounded_factor(kind):
    likelihood = kind(noise_scale=0.5, heteroscedastic=True)
    outputs = torch.tensor([[1.0, 0.0], [2.0, 0.1], [3.0, -0.1], [4.0, 1e6], [5.0, -1e6]])
    location, scale = likelihood.location_and_scale(outputs)
    torch.testing.assert_close(location, outputs[:, 0])
    factor = torch.tensor([1.0, math.exp(0.1), math.exp(-0.1), math.exp(3), math.exp(-3)])
    torch.testing.assert_close(scale.detach() / 0.5, factor, rtol=1e-3, atol=0)
    assert bool(torch.isfinite(likelihood(outputs).log_prob(torch.zeros(5))).all())


@pytest.mark.exact
@pytest.mark.parametrize("heteroscedastic", [False, True])
def test_several_targets_are_one_observation(heteroscedastic):
    likelihood = likelihoods.Gaussian(0.5, num_targets=3, heteroscedastic=heteroscedastic)
    assert likelihood.num_outputs() == (6 if heteroscedastic else 3)
    outputs, y = torch.randn(4, likelihood.num_outputs()), torch.randn(4, 3)
    distribution = likelihood(outputs)
    assert (tuple(distribution.batch_shape), tuple(distribution.event_shape)) == ((4,), (3,))
    scale = 0.5 * torch.ones(4, 3)
    if heteroscedastic:
        scale = scale * (3 * torch.tanh(outputs[:, 3:] / 3)).exp()
    expected = torch.distributions.Normal(outputs[:, :3], scale).log_prob(y).sum(-1)
    torch.testing.assert_close(distribution.log_prob(y).detach(), expected)
    torch.testing.assert_close(likelihood.mean(outputs), outputs[:, :3])


@pytest.mark.exact
def test_discrete_densities():
    outputs = torch.randn(6, 4)
    y = torch.tensor([0, 1, 2, 3, 3, 0])
    density = likelihoods.Categorical()(outputs).log_prob(y)
    torch.testing.assert_close(density, -F.cross_entropy(outputs, y, reduction="none"))

    logit, y = torch.randn(6, 1), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    density = likelihoods.Bernoulli()(logit).log_prob(y)
    expected = -F.binary_cross_entropy_with_logits(logit[:, 0], y, reduction="none")
    torch.testing.assert_close(density, expected)

    raw, y = torch.randn(6, 1), torch.tensor([0.0, 1.0, 5.0, 2.0, 9.0, 0.0])
    density = likelihoods.Poisson()(raw).log_prob(y)
    expected = scipy.stats.poisson.logpmf(y, F.softplus(raw[:, 0]))
    torch.testing.assert_close(density, torch.from_numpy(expected).float())


@pytest.mark.statistical
@pytest.mark.parametrize("likelihood", ALL, ids=name_of)
def test_stated_mean_is_the_mean_of_the_draws(likelihood):
    outputs = torch.randn(3, likelihood.num_outputs() or 4)
    with torch.no_grad():
        draws = likelihood(outputs).sample((20_000,))
        mean = likelihood.mean(outputs)
    if isinstance(likelihood, likelihoods.Categorical):
        draws = F.one_hot(draws, 4)
    assert_mean(draws, mean)


@pytest.mark.contract
def test_poisson_rate_stays_positive_and_finite():
    outputs = torch.tensor([[-1e4], [1e4]])
    density = likelihoods.Poisson()(outputs).log_prob(torch.tensor([0.0, 3.0]))
    assert bool(torch.isfinite(density).all())
    assert bool((likelihoods.Poisson().mean(outputs) > 0).all())


# What a model asks.


@pytest.mark.contract
@pytest.mark.parametrize("likelihood", ALL, ids=name_of)
def test_has_one_observation_per_example(likelihood):
    outputs = torch.randn(5, likelihood.num_outputs() or 4)
    distribution = likelihood(outputs)
    assert tuple(distribution.batch_shape) == (5,)
    assert tuple(distribution.event_shape) == ()
    assert isinstance(likelihood, likelihoods.Likelihood)
    assert likelihood.task in ("regression", "classification", "count")


@pytest.mark.contract
def test_noise_is_learned_where_asked():
    learned = likelihoods.StudentT(learn_degrees_of_freedom=True)
    assert {name for name, p in learned.named_parameters() if p.requires_grad} == {
        "log_scale",
        "log_excess",
    }
    fixed = likelihoods.StudentT(learn_noise=False)
    assert not any(p.requires_grad for p in fixed.parameters())
    distribution = learned(torch.zeros(3, 1))
    distribution.log_prob(torch.full((3,), 3.0)).sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in learned.parameters())


@pytest.mark.contract
@pytest.mark.parametrize("likelihood", [*ALL, likelihoods.Gaussian(num_targets=2)], ids=name_of)
def test_description_builds_an_equal_likelihood(likelihood):
    description = json.loads(json.dumps(likelihoods.describe(likelihood)))
    other = likelihoods.build(description)
    assert type(other) is type(likelihood)
    assert likelihoods.describe(other) == description
    outputs = torch.randn(3, likelihood.num_outputs() or 4)
    torch.testing.assert_close(other.mean(outputs), likelihood.mean(outputs))
    torch.testing.assert_close(other.state_dict(), likelihood.state_dict())


@pytest.mark.contract
def test_description_of_learned_noise_is_completed_by_the_state():
    likelihood = likelihoods.StudentT(5.0, learn_degrees_of_freedom=True)
    likelihood.log_scale.data.fill_(0.3)
    other = likelihoods.build(likelihoods.describe(likelihood))
    other.load_state_dict(likelihood.state_dict())
    outputs = torch.randn(3, 1)
    y = torch.randn(3)
    torch.testing.assert_close(other(outputs).log_prob(y), likelihood(outputs).log_prob(y))


# Arguments.


@pytest.mark.contract
@pytest.mark.parametrize("kind", [likelihoods.Gaussian, likelihoods.StudentT])
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"noise_scale": 0.0},
            "Expected noise_scale > 0 (standard deviation of the target's noise, in the target's "
            "units), but got 0.0.",
        ),
        ({"noise_scale": float("nan")}, "but got nan."),
        ({"num_targets": 0}, "Expected num_targets >= 1, but got 0."),
        ({"minimum_scale": -1.0}, "Expected minimum_scale >= 0, but got -1.0."),
    ],
)
def test_settings_are_checked(kind, settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kind(**settings)


@pytest.mark.contract
@pytest.mark.parametrize("degrees", [2.0, 1.0, float("nan"), float("inf")])
def test_degrees_of_freedom_are_checked(degrees):
    text = (
        "Expected finite degrees_of_freedom > 2 (the variance is infinite at and below 2), but got "
        f"{degrees}. Use Gaussian for the limit of many."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        likelihoods.StudentT(degrees)


@pytest.mark.contract
def test_foreign_likelihoods_cannot_be_described():
    class Mine(nn.Module):
        pass

    class Gaussian(likelihoods.Gaussian):
        """A subclass that has the name of one of ours is none of ours."""

    for likelihood, name in ((Mine(), "Mine"), (Gaussian(), "Gaussian")):
        text = (
            "Expected one of the library's likelihoods ['Bernoulli', 'Categorical', 'Gaussian', "
            f"'Poisson', 'StudentT'] to save without code, but got {name}. Pass likelihood= again "
            "when loading."
        )
        with pytest.raises(ValueError, match=re.escape(text)):
            likelihoods.describe(likelihood)


@pytest.mark.contract
@pytest.mark.parametrize("description", [{"kind": "Cauchy"}, {}])
def test_unknown_descriptions_are_refused(description):
    text = (
        "Expected a likelihood kind among ['Bernoulli', 'Categorical', 'Gaussian', 'Poisson', "
        f"'StudentT'], but got {description.get('kind')!r}."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        likelihoods.build(description)
