"""Noise fitted on held-out predictions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import optimize

from pyro_relevance import likelihoods
from pyro_relevance.model.noise import fit_noise, predictive_log_likelihood


@pytest.mark.exact
def test_gaussian_noise_is_the_root_mean_square_of_the_residuals() -> None:
    y = torch.randn(500) * 0.3
    start = likelihoods.Gaussian(1.0, learn_noise=False)
    fitted = fit_noise(start, torch.zeros(1, 500, 1), y)
    scale = float(fitted.log_scale.detach().exp())
    assert scale == pytest.approx(float(y.square().mean().sqrt()), rel=1e-3)
    assert float(start.log_scale.detach()) == 0.0
    assert not fitted.log_scale.requires_grad
    assert fitted.log_scale.dtype == torch.float32


@pytest.mark.exact
@pytest.mark.parametrize("residual", [1e-3, 0.3, 40.0])
def test_few_residuals_leave_the_noise_near_its_start(residual: float) -> None:
    """One residual r: the mode of log s solves 1 - (r / s)^2 + (log s - start) / 2^2 = 0."""
    start = 0.5
    mode = optimize.brentq(
        lambda log_scale: 1 - (residual / math.exp(log_scale)) ** 2 + (log_scale - start) / 4,
        -10.0,
        10.0,
    )
    likelihood = likelihoods.Gaussian(math.exp(start))
    fitted = fit_noise(likelihood, torch.zeros(1, 1, 1), torch.tensor([residual]))
    assert float(fitted.log_scale.detach()) == pytest.approx(mode, abs=1e-4)


@pytest.mark.statistical
def test_student_noise_finds_its_scale_and_degrees_of_freedom() -> None:
    y = torch.distributions.StudentT(4.0, 0.0, 0.3).sample((20_000,))
    fitted = fit_noise(likelihoods.StudentT(8.0), torch.zeros(1, len(y), 1), y)
    assert float(fitted.log_scale.detach().exp()) == pytest.approx(0.3, rel=0.05)
    assert 2.0 + float(fitted.log_excess.detach().exp()) == pytest.approx(4.0, rel=0.15)


@pytest.mark.exact
def test_predictive_density_averages_densities_not_logarithms() -> None:
    outputs = torch.tensor([[[0.0]], [[2.0]]])
    y = torch.tensor([0.5])
    value = predictive_log_likelihood(likelihoods.Gaussian(1.0), outputs, y).detach()
    densities = [math.exp(-0.5 * (0.5 - m) ** 2) / math.sqrt(2 * math.pi) for m in (0.0, 2.0)]
    assert float(value) == pytest.approx(math.log(sum(densities) / 2), abs=1e-6)


@pytest.mark.contract
def test_a_likelihood_without_noise_is_returned_as_it_is() -> None:
    fitted = fit_noise(likelihoods.Categorical(), torch.zeros(1, 3, 2), torch.tensor([0, 1, 0]))
    assert isinstance(fitted, likelihoods.Categorical)


@pytest.mark.contract
def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Expected outputs of shape \(num_samples, num_data"):
        fit_noise(likelihoods.Gaussian(), torch.zeros(3, 1), torch.zeros(3))
