from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pyro_relevance import masks, plots
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import fake_data, fake_posterior


@pytest.fixture(scope="module")
def dataset():
    posterior = fake_posterior()
    scores = {name: p.mean(0) for name, p in posterior.probability.items()}
    return report.rule_path(
        posterior, masks.path(scores, num_points=8), fake_data(posterior), num_samples=10
    )


def test_lines_and_bands_are_those_of_the_draws(dataset):
    figure = plots.path(dataset)
    for ax, name in zip(figure.axes, ("rmse", "log_likelihood"), strict=True):
        values = dataset[name].to_numpy().reshape(8, -1)
        (line,) = ax.lines
        np.testing.assert_allclose(line.get_ydata(), values.mean(1), rtol=1e-5)
        np.testing.assert_array_equal(line.get_xdata(), dataset["density"])
        (band,) = ax.collections
        drawn = band.get_paths()[0].vertices
        for quantile in (0.05, 0.95):
            for density, wanted in zip(
                dataset["density"].to_numpy(), np.quantile(values, quantile, axis=1), strict=True
            ):
                assert np.isclose(drawn, [density, wanted], rtol=1e-5).all(axis=1).any()


def test_the_chosen_mask_is_marked(dataset):
    figure = plots.path(dataset, chosen=0.25, width="single")
    for ax in figure.axes:
        assert [line.get_xdata() for line in ax.lines if line.get_label() == "chosen mask"] == [
            [0.25, 0.25]
        ]
    assert "The chosen mask keeps 0.25 of the edges" in plots.caption(figure)
    assert figure.get_figwidth() == plots.SINGLE_COLUMN
    assert "chosen" not in plots.caption(plots.path(dataset))


def test_axes_carry_units_and_sizes(dataset):
    first, second = plots.path(dataset).axes
    assert first.get_ylabel() == "RMSE (unit of y)"
    assert second.get_ylabel() == "Log likelihood (nats per datum)"
    assert first.get_xlabel().startswith("Density")
    (top,) = first.child_axes
    assert top.get_xlabel() == "Parameters left"
    texts = [text.get_text() for text in top.get_xticklabels()]
    assert "181" in texts
    assert 2 <= len(texts) <= 5


def test_accuracy_comes_first_where_there_is_one(dataset):
    renamed = dataset.rename(rmse="accuracy").drop_vars("num_parameters")
    ax = plots.path(renamed).axes[0]
    assert ax.get_ylabel().startswith("Accuracy")
    assert ax.child_axes == []


def test_densities_over_decades_get_a_logarithmic_axis(dataset):
    wide = dataset.assign(density=("mask", np.logspace(-3, 0, 8)))
    assert plots.path(wide).axes[0].get_xscale() == "log"


def test_other_datasets_are_refused():
    with pytest.raises(ValueError, match=r"Pass what report.rule_path returned"):
        plots.path(xr.Dataset({"density": ("mask", [1.0])}))
