"""Latent sites, weights and point estimates in the ArviZ object."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from tests.small_fits import make_model, quick_fit, regression

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

PRIORS = {
    "point": pr.priors.PointWeights(),
    "gaussian": pr.priors.GaussianWeights(),
    "ard": pr.priors.ArdWeights(),
    "horseshoe": pr.priors.HorseshoeWeights(),
}


@pytest.mark.exact
@pytest.mark.parametrize("weights", PRIORS)
def test_summary_of_the_posterior_is_finite(weights: str) -> None:
    """Also where chains disagree about a gate for sure: what is constant lies elsewhere."""
    model = make_model(weight_prior=PRIORS[weights], gate_prior=pr.priors.HierarchicalPrior())
    posterior = quick_fit(model, num_chains=2).posterior
    with torch.no_grad():
        odds = posterior.state["guide.gate_log_odds"]
        odds[0, :4], odds[1, :4] = 90.0, -90.0
    idata = pr.to_arviz(posterior, data=regression(), num_samples=40)
    gates = idata["relevance"]["inputs_gate"].to_numpy()
    assert gates[0].min() == 1
    assert gates[1].max() == 0
    table = az.summary(idata)
    numbers = table.select_dtypes("number").to_numpy()
    assert np.isfinite(numbers).all()
    assert numbers.max() < 1e6
    assert any(name.startswith("gate[inputs[") for name in table.index)


@pytest.mark.exact
def test_every_latent_site_and_every_weight_is_written_once() -> None:
    model = make_model(
        weight_prior=pr.priors.ArdWeights(), gate_prior=pr.priors.HierarchicalPrior()
    )
    posterior = quick_fit(model, num_chains=2).posterior
    idata = pr.to_arviz(posterior, num_samples=6, seed=1)
    written = idata["posterior"]
    sites, draws = posterior.sample_sites(6, seed=1), posterior.sample(6, seed=1)
    parameters = {"layer_0_weight", "layer_0_bias", "layer_2_weight", "layer_2_bias"}
    assert set(written.data_vars) == {"gate", "inclusion_logit", "weight_scale"} | parameters
    for name in ("gate", "inclusion_logit", "weight_scale"):
        np.testing.assert_array_equal(written[name], sites[name])
    np.testing.assert_array_equal(written["layer_0_weight"], draws.weights["0.weight"])
    assert "ArdWeights" in written.attrs["weight_prior"]
    assert not set(idata["point_estimates"].data_vars) & parameters
    one = pr.to_arviz(posterior, num_samples=1)
    assert parameters <= set(one["posterior"].data_vars)
    assert not set(one["point_estimates"].data_vars) & parameters


@pytest.mark.exact
def test_point_estimates_have_one_value_in_each_chain() -> None:
    likelihood = pr.likelihoods.StudentT(5.0, noise_scale=0.3, minimum_scale=0.01)
    posterior = quick_fit(make_model(likelihood=likelihood), num_chains=2).posterior
    units = pr.report.TargetUnits(scale=10.0)
    found = pr.to_arviz(posterior, target=units, num_samples=3)["point_estimates"]
    weights = posterior.sample(1).weights["0.weight"][:, 0]
    np.testing.assert_array_equal(found["layer_0_weight"], weights)
    scale = posterior.state["model.likelihood.log_scale"].exp()[:, 0] + 0.01
    np.testing.assert_allclose(found["noise_scale"], 10 * scale, rtol=1e-6)
    np.testing.assert_allclose(found["degrees_of_freedom"], 5.0, rtol=1e-6)
    np.testing.assert_array_equal(found["prior_log_odds"], posterior.state["model.prior_log_odds"])
    fitted = pr.likelihoods.StudentT(4.0, noise_scale=0.7)
    both = pr.to_arviz(posterior, target=units, likelihood=fitted, num_samples=3)
    both = both["point_estimates"]
    np.testing.assert_allclose(both["noise_scale"], 7.0, rtol=1e-6)
    np.testing.assert_allclose(both["training_noise_scale"], 10 * scale, rtol=1e-6)


@pytest.mark.contract
def test_without_sites_and_without_latent_variables_draws_are_numbered() -> None:
    posterior = quick_fit(num_chains=2).posterior
    for source, sites in (
        (posterior, False),
        (quick_fit(make_model(gate_prior=None)).posterior, True),
    ):
        idata = pr.to_arviz(source, num_samples=4, sites=sites)
        assert list(idata["posterior"].data_vars) == ["draw_number"]
        assert idata["posterior"]["draw_number"].sizes["draw"] == 4
