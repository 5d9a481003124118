"""Rows as ArviZ groups: one likelihood, one unit, and which rows lie where."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_relevance as pr
from pyro_relevance import Posterior
from tests.small_fits import make_model, quick_fit, regression

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

UNITS = pr.report.TargetUnits(mean=20.0, scale=5.0, unit="kg")
NOISE = pr.likelihoods.StudentT(4.0, noise_scale=0.3)


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return quick_fit(num_epochs=20, num_chains=2).posterior


def new_rows() -> tuple[Tensor, Tensor]:
    return regression(9, seed=5)


def values(idata: Any, group: str, name: str) -> Any:
    return idata[group][name].to_numpy()


@pytest.mark.exact
def test_predictions_are_in_the_targets_unit_under_the_likelihood_given(
    posterior: Posterior,
) -> None:
    x, y = new_rows()
    idata = pr.to_arviz(
        posterior, predictions=(x, y), likelihood=NOISE, target=UNITS, num_samples=7, seed=2
    )
    predicted = posterior.predict(x, likelihood=NOISE, num_samples=7, seed=2)
    np.testing.assert_allclose(values(idata, "predictions", "y"), 20 + 5 * predicted.sample)
    np.testing.assert_allclose(values(idata, "predictions", "y_mean"), 20 + 5 * predicted.mean)
    kept = values(idata, "predictions_constant_data", "y")
    np.testing.assert_allclose(kept, 20 + 5 * y.double(), rtol=1e-6)
    np.testing.assert_allclose(values(idata, "predictions_constant_data", "x"), x)
    # The density in the target's own unit: Student-t around 20 + 5 f with scale 5 * 0.3.
    location = torch.tensor(values(idata, "predictions", "y_mean"))
    law = torch.distributions.StudentT(4.0, location, 1.5)
    expected = law.log_prob(torch.tensor(kept))
    scored = values(idata, "predictions", "log_likelihood")
    np.testing.assert_allclose(scored, expected, rtol=1e-4, atol=1e-4)
    assert idata["predictions"]["y"].attrs["units"] == "kg"
    # The same draws as those of the intervals.
    over = pr.intervals.loss_interval(
        posterior, (x, y), likelihood=NOISE, num_samples=7, seed=2, probability=0.5
    )
    loss, error = (values(idata, "predictions", name) for name in ("loss", "error"))
    np.testing.assert_allclose(np.quantile(loss, 0.75), over.loss.upper + np.log(5), rtol=1e-5)
    np.testing.assert_allclose(np.quantile(error, 0.75), 5 * over.error.upper, rtol=1e-5)


@pytest.mark.contract
def test_rows_trained_on_and_new_rows_lie_in_groups_of_their_own(posterior: Posterior) -> None:
    idata = pr.to_arviz(posterior, data=regression(), predictions=(new_rows()[0], None))
    assert idata["observed_data"]["y"].sizes == {"obs": 48}
    assert idata["log_likelihood"]["y"].sizes["obs"] == 48
    assert idata["predictions"]["y"].sizes["new_obs"] == 9
    assert "log_likelihood" not in idata["predictions"]
    assert "y" not in idata["predictions_constant_data"]


@pytest.mark.exact
def test_training_rows_are_scored_by_networks_that_did_not_see_them(posterior: Posterior) -> None:
    x, y = regression()
    rows = np.array([7, 3, 40])
    outputs = torch.randn(1, 6, 3, 1)
    idata = pr.to_arviz(
        posterior,
        data=(x, y),
        likelihood=NOISE,
        target=UNITS,
        held_out=pr.report.HeldOutDraws(rows, outputs),
        num_samples=5,
    )
    assert idata["observed_data"]["obs"].to_numpy().tolist() == [3, 7, 40]
    np.testing.assert_allclose(
        values(idata, "observed_data", "y"), 20 + 5 * y[[3, 7, 40]].double(), rtol=1e-6
    )
    with torch.no_grad():
        scored = torch.stack([NOISE(o).log_prob(y[rows]) for o in outputs[0]]) - np.log(5.0)
    found = values(idata, "log_likelihood", "y")
    np.testing.assert_allclose(found[0][:, [1, 0, 2]], scored, rtol=1e-5)
    # Replicates are centred on the outputs of their own rows.
    replicated = torch.tensor(values(idata, "posterior_predictive", "y"))[0][:, [1, 0, 2]]
    assert replicated.shape == (6, 3)
    residual = (replicated - 20) / 5 - outputs[0, :, :, 0]
    assert float(residual.abs().median()) < 1.0


@pytest.mark.exact
def test_inputs_are_kept_in_their_own_units_with_their_scales(posterior: Posterior) -> None:
    x, y = regression()
    features = pr.report.Features(("a", "b", "c", "d"), (1.0, 0.0, 0.0, 5.0), (2.0, 1.0, 1.0, 10.0))
    idata = pr.to_arviz(posterior, data=(x, y), features=features, target=UNITS, num_samples=2)
    constant = idata["constant_data"]
    np.testing.assert_allclose(constant["x"].sel(feature="d"), 5 + 10 * x[:, 3].double(), rtol=1e-6)
    assert constant["feature_scale"].to_numpy().tolist() == [2.0, 1.0, 1.0, 10.0]
    assert float(constant["target_scale"]) == 5.0


@pytest.mark.contract
def test_probabilities_of_classes_keep_an_axis_and_have_no_unit() -> None:
    x, y = regression()
    model = make_model(torch.nn.Linear(4, 3), likelihood=pr.likelihoods.Categorical())
    posterior = quick_fit(model, (x, (y > 0).long())).posterior
    idata = pr.to_arviz(posterior, predictions=(x, (y > 0).long()), num_samples=4)
    assert idata["predictions"]["y_mean"].dims == ("chain", "draw", "new_obs", "class")
    np.testing.assert_allclose(idata["predictions"]["y_mean"].sum("class"), 1.0, rtol=1e-5)
    assert idata["predictions"]["y"].dtype.kind == "i"
    wrong = idata["predictions"]["y_mean"].to_numpy().argmax(-1) != (y > 0).long().numpy()
    np.testing.assert_allclose(idata["predictions"]["error"], wrong.mean(-1))


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto distribution:UserWarning")
def test_loo_and_pit_of_held_out_draws_say_what_the_held_out_rows_say(
    posterior: Posterior,
) -> None:
    """PSIS on held-out draws is near the cross-validated density, with few effective parameters."""
    generator = torch.Generator().manual_seed(0)
    x, _ = regression(200)
    truth = torch.randn(200, generator=generator)
    outputs = truth[None, None, :, None] + 0.1 * torch.randn(1, 400, 200, 1, generator=generator)
    y = truth + 0.5 * torch.randn(200, generator=generator)
    idata = pr.to_arviz(
        posterior,
        data=(x, y),
        likelihood=pr.likelihoods.Gaussian(0.5),
        held_out=pr.report.HeldOutDraws(np.arange(200), outputs),
        num_samples=50,
    )
    loo = az.loo(idata)
    scored = values(idata, "log_likelihood", "y")[0]
    held_out = float(np.log(np.exp(scored).mean(0)).sum())
    elpd, penalty = (loo.elpd_loo, loo.p_loo) if hasattr(loo, "elpd_loo") else (loo.elpd, loo.p)
    # Each draw moves a row's log density by about 0.1 / 0.5: 200 rows cost about 200 * 0.04.
    assert held_out - 16 < elpd <= held_out
    assert 0 < penalty < 16
    pit = np.asarray(
        az.loo_pit(idata, y="y") if hasattr(loo, "elpd_loo") else az.loo_pit(idata)["y"]
    )
    # Kolmogorov-Smirnov at one false alarm in a million: 2.7 / sqrt(n).
    distance = np.abs(np.sort(pit) - (np.arange(200) + 0.5) / 200).max()
    assert distance < 2.7 / np.sqrt(200)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"held_out": pr.report.HeldOutDraws(np.array([0]), torch.zeros(1, 2, 1, 1))},
            r"Expected data=\(x, y\) beside held_out",
        ),
        (
            {
                "data": regression(),
                "held_out": pr.report.HeldOutDraws(np.array([1, 1]), torch.zeros(1, 2, 2, 1)),
            },
            "Expected held_out.rows as different numbers from 0 to 47",
        ),
        (
            {
                "data": regression(),
                "held_out": pr.report.HeldOutDraws(np.array([1, 2]), torch.zeros(2, 2, 1)),
            },
            r"Expected held_out.outputs of shape \(num_chains, num_samples, 2, num_outputs\)",
        ),
        (
            {"predictions": (torch.zeros(3, 4), torch.zeros(2))},
            r"Expected predictions=\(x, y\) of equal length, but got 3 inputs and 2",
        ),
        (
            {
                "data": regression(),
                "features": pr.report.Features(("a",), (0.0,), (1.0,)),
            },
            "Expected inputs with the 1 columns of features",
        ),
    ],
)
def test_wrong_rows_are_refused(posterior: Posterior, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pr.to_arviz(posterior, num_samples=2, **options)


@pytest.mark.contract
def test_units_and_features_check_themselves() -> None:
    with pytest.raises(ValueError, match="Expected a positive scale of the target, but got 0"):
        pr.report.TargetUnits(scale=0.0)
    with pytest.raises(ValueError, match="Expected as many means and scales as names, but got 2"):
        pr.report.Features(("a", "b"), (0.0,), (1.0, 1.0))
