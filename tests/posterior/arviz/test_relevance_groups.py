"""Means, ranges over chains, and intervals over draws and chains, in the ArviZ object."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from tests.small_fits import make_model, quick_fit


@pytest.mark.exact
def test_the_summary_pools_inputs_and_keeps_chains_of_units_apart() -> None:
    model = make_model(weight_prior=pr.priors.GaussianWeights())
    posterior = quick_fit(model, num_chains=3).posterior
    with torch.no_grad():
        posterior.state["guide.gate_log_odds"].normal_()
    idata = pr.to_arviz(posterior, num_samples=50)
    summary, draws = idata["relevance_summary"], idata["relevance"]
    effects = draws["inputs_effect"].to_numpy().reshape(150, 4)
    lower, upper = np.quantile(effects, [0.055, 0.945], axis=0)
    np.testing.assert_allclose(summary["inputs_effect_lower"], lower, rtol=1e-5)
    np.testing.assert_allclose(summary["inputs_effect_upper"], upper, rtol=1e-5)
    p = posterior.inclusion_probability()["inputs"]
    np.testing.assert_allclose(summary["inputs_inclusion_mean"], p.mean(0), rtol=1e-5)
    np.testing.assert_allclose(summary["inputs_inclusion_lowest_chain"], p.amin(0), rtol=1e-5)
    np.testing.assert_allclose(summary["inputs_inclusion_highest_chain"], p.amax(0), rtol=1e-5)
    assert summary["layer_0_units_effect_mean"].dims == ("chain", "layer_0_units_edge")
    own = draws["layer_0_units_effect"].to_numpy()
    np.testing.assert_allclose(
        summary["layer_0_units_effect_upper"], np.quantile(own, 0.945, axis=1), rtol=1e-5
    )
    assert "layer_0_units_inclusion_lowest_chain" not in summary


@pytest.mark.contract
def test_one_chain_is_pooled_and_has_no_range() -> None:
    summary = pr.to_arviz(quick_fit().posterior, num_samples=5)["relevance_summary"]
    assert summary["layer_0_units_effect_mean"].dims == ("layer_0_units_edge",)
    assert not [name for name in summary.data_vars if "chain" in name]
