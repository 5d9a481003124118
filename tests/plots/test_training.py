from __future__ import annotations

import numpy as np
import pytest

from pyro_relevance import plots
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import fake_posterior


def idata_of(num_chains):
    return report.to_arviz(fake_posterior(num_chains=num_chains), num_samples=2)


@pytest.mark.parametrize("num_chains", [1, 3])
def test_each_panel_draws_chains_and_their_mean(num_chains):
    idata = idata_of(num_chains)
    figure = plots.training(idata)
    assert len(figure.axes) == 3
    stats = idata["sample_stats"]
    for ax, name in zip(figure.axes, ("loss", "temperature", "expected_size"), strict=True):
        values = stats[name].to_numpy()
        lines = {line.get_label(): line for line in ax.lines}
        np.testing.assert_allclose(lines["mean"].get_ydata(), values.mean(0))
        np.testing.assert_array_equal(lines["mean"].get_xdata(), stats["step"])
        chains = [line for line in ax.lines if line is not lines["mean"]]
        if num_chains == 1 or name == "temperature":
            assert chains == []
        else:
            np.testing.assert_array_equal([line.get_ydata() for line in chains], values)


def test_axes_carry_units():
    labels = [ax.get_ylabel() for ax in plots.training(idata_of(2)).axes]
    assert labels == ["Negative ELBO (nats)", "Temperature", "Expected size (parameters)"]


def test_wide_positive_values_get_a_logarithmic_axis():
    posterior = fake_posterior()
    assert plots.training(report.to_arviz(posterior, num_samples=2)).axes[0].get_yscale() == "log"
    posterior.history.loss = posterior.history.loss - 5000
    figure = plots.training(report.to_arviz(posterior, num_samples=2))
    assert figure.axes[0].get_yscale() == "linear"


def test_without_history_the_error_names_the_group():
    posterior = fake_posterior()
    posterior.history = None
    idata = report.to_arviz(posterior, num_samples=2)
    with pytest.raises(
        ValueError, match=r"group 'sample_stats', but got groups \['point_estimates', 'posterior', "
    ):
        plots.training(idata)
    idata["sample_stats"] = idata["posterior"]
    with pytest.raises(ValueError, match="Expected sample_stats with"):
        plots.training(idata)
