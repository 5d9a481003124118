"""Figures of predictions: what is drawn is what the draws say."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from pyro_relevance import plots
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.posterior.arviz import partial_dependence
from tests.fake_posterior import fake_data, fake_posterior


@pytest.fixture(scope="module")
def idata():
    posterior = fake_posterior()
    x, y = fake_data(posterior, 60)
    data = (x, y.squeeze(-1))
    return report.to_arviz(posterior, data=data, predictions=data, num_samples=40)


@pytest.fixture(scope="module")
def classes():
    posterior = fake_posterior((13, 12, 3), classes=True)
    data = fake_data(posterior, 80)
    return report.to_arviz(posterior, data=data, predictions=data, num_samples=20)


def pooled(array):
    values = array.to_numpy()
    return values.reshape(-1, *values.shape[2:])


@pytest.mark.exact
@pytest.mark.parametrize("where", ["predictions", "posterior_predictive"])
def test_observed_stands_against_predicted(idata, where):
    figure = plots.observed_predicted(idata, where=where)
    ax = figure.axes[0]
    drawn = pooled(idata[where]["y"])
    predicted = pooled(idata[where]["y_mean"]) if where == "predictions" else drawn
    outcome = "predictions_constant_data" if where == "predictions" else "observed_data"
    truth = idata[outcome]["y"].to_numpy()
    low, high = np.quantile(drawn, [0.055, 0.945], axis=0)
    inside = (low <= truth) & (truth <= high)
    dots = {c.get_label(): c.get_offsets() for c in ax.collections if c.get_label()[0] != "_"}
    wanted = np.c_[predicted.mean(0), truth]
    np.testing.assert_allclose(dots["inside its interval"], wanted[inside], rtol=1e-5)
    np.testing.assert_allclose(dots["outside"], wanted[~inside], rtol=1e-5)
    assert f"which hold {inside.mean():.0%} of the rows" in plots.caption(figure)


@pytest.mark.exact
def test_pit_counts_the_draws_below(idata):
    figure = plots.calibration(idata, num_bins=5)
    ax = figure.axes[0]
    drawn, truth = pooled(idata["predictions"]["y"]), idata["predictions_constant_data"]["y"]
    pit = (drawn < truth.to_numpy()).mean(0)
    counts, _ = np.histogram(pit, 5, (0, 1))
    bars = [bar.get_height() for bar in ax.patches if bar.get_width() == pytest.approx(0.2)]
    np.testing.assert_array_equal(bars, counts)
    low, high = stats.binom.interval(0.89, 60, 0.2)
    outside = int(((counts < low) | (counts > high)).sum())
    assert f"in 5 bins: {outside} of them" in plots.caption(figure)


@pytest.mark.exact
def test_reliability_of_the_most_probable_class(classes):
    figure = plots.calibration(classes, num_bins=4)
    ax = figure.axes[0]
    p = pooled(classes["predictions"]["y_mean"]).mean(0)
    truth = classes["predictions_constant_data"]["y"].to_numpy()
    right, best = (p.argmax(1) == truth).astype(float), p.max(1)
    bins = np.array_split(np.argsort(best, kind="stable"), 4)
    expected = [(best[rows].mean(), right[rows].mean()) for rows in bins]
    (line,) = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(line.get_xydata(), expected, rtol=1e-6)
    error = np.mean([abs(a - b) for a, b in expected])
    assert f"(ECE): {error:.3f}" in plots.caption(figure)
    segments = next(iter(c for c in ax.collections if c.get_label() == "89 % interval"))
    wilson = stats.binomtest(int(right[bins[0]].sum()), 20).proportion_ci(0.89, "wilson")
    np.testing.assert_allclose(segments.get_segments()[0][:, 1], wilson, rtol=1e-6)


@pytest.mark.contract
def test_two_classes_are_named():
    posterior = fake_posterior((13, 12, 2), classes=True)
    data = fake_data(posterior, 40)
    idata = report.to_arviz(posterior, predictions=data, num_samples=10)
    figure = plots.calibration(idata, class_names=["no", "yes"])
    assert figure.axes[0].get_xlabel() == "Predicted probability of class yes"


@pytest.mark.contract
def test_what_cannot_be_drawn_is_told(idata, classes):
    with pytest.raises(ValueError, match="Expected a target that is a quantity"):
        plots.observed_predicted(classes)
    with pytest.raises(ValueError, match="Expected where in"):
        plots.calibration(idata, where="prior")
    with pytest.raises(ValueError, match="num_bins >= 1, but got 0"):
        plots.calibration(idata, num_bins=0)
    bare = report.to_arviz(fake_posterior(), num_samples=2)
    with pytest.raises(ValueError, match="with group 'predictions'"):
        plots.calibration(bare)
    x, _ = fake_data(fake_posterior(), 5)
    blind = report.to_arviz(fake_posterior(), predictions=(x, None), num_samples=2)
    with pytest.raises(ValueError, match="Pass the targets of the rows to to_arviz"):
        plots.observed_predicted(blind)


@pytest.fixture(scope="module")
def dependence():
    posterior = fake_posterior((3, 5, 1), ("input",))
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    features = report.Features(("a", "b", "c"), (1.0, 2.0, 3.0), (2.0, 2.0, 2.0))
    target = report.TargetUnits(10.0, 5.0)
    return (
        posterior,
        x,
        partial_dependence(
            posterior, x, 1, num_points=6, num_samples=4, features=features, target=target
        ),
    )


@pytest.mark.exact
def test_partial_dependence_is_the_mean_over_rows(dependence):
    posterior, x, dataset = dependence
    assert dataset["y"].dims == ("chain", "draw", "value")
    assert dataset.sizes["value"] == 6
    values = (dataset["value"].to_numpy() - 2.0) / 2.0
    np.testing.assert_allclose(values[[0, -1]], np.quantile(x[:, 1].numpy(), [0.02, 0.98]), 1e-5)
    changed = x.clone()
    changed[:, 1] = float(values[3])
    mean = posterior.predict(changed, num_samples=4).mean[..., 0].mean(-1)
    np.testing.assert_allclose(dataset["y"][:, :, 3], 10 + 5 * mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(dataset["observed"], 2.0 + 2.0 * x[:, 1].numpy(), rtol=1e-6)


@pytest.mark.exact
def test_partial_dependence_has_line_and_band(dependence):
    _, _, dataset = dependence
    figure = plots.partial_dependence(dataset, name="price")
    ax = figure.axes[0]
    draws = pooled(dataset["y"])
    (mean,) = [line for line in ax.lines if line.get_label() == "mean"]
    np.testing.assert_allclose(mean.get_xydata(), np.c_[dataset["value"], draws.mean(0)])
    band = ax.collections[0].get_paths()[0].vertices
    for end in np.quantile(draws, [0.055, 0.945], axis=0):
        for point in zip(dataset["value"].to_numpy(), end, strict=True):
            assert np.isclose(band, point).all(1).any()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "price")
    assert "Partial dependence on b: price when" in plots.caption(figure)


@pytest.mark.contract
def test_partial_dependence_of_classes_and_few_values():
    posterior = fake_posterior((3, 5, 2), ("input",), classes=True)
    x = torch.randn(20, 3)
    x[:, 0] = (x[:, 0] > 0).float()
    dataset = partial_dependence(posterior, x, 0, num_samples=2)
    assert dataset["value"].to_numpy().tolist() == [0.0, 1.0]
    np.testing.assert_allclose(dataset["y"].sum("class"), 1.0, rtol=1e-5)
    assert plots.partial_dependence(dataset).axes[0].get_ylabel() == "Probability of class 1"
    with pytest.raises(ValueError, match="class_index from 0 to 1, but got 2"):
        plots.partial_dependence(dataset, class_index=2)
    with pytest.raises(ValueError, match="Pass what report.partial_dependence returned"):
        plots.partial_dependence(xr.Dataset())
    with pytest.raises(ValueError, match="Expected x of shape"):
        partial_dependence(posterior, x, 3)


@pytest.mark.contract
def test_settings_stay_and_captions_are_in_the_files(idata, tmp_path):
    from PIL import Image

    before = mpl.rcParams.copy()
    figure = plots.calibration(idata)
    pdf, png = plots.save(figure, tmp_path / "calibration")
    assert mpl.rcParams == before
    with Image.open(png) as image:
        assert image.info["Description"] == plots.caption(figure)
    assert b"/Subject" in pdf.read_bytes()


@pytest.mark.contract
def test_a_noisy_figure_has_at_most_a_megabyte(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7))
    figure.subplots().imshow(np.random.default_rng(0).uniform(size=(2000, 2000, 3)))
    _, png = plots.save(figure, tmp_path / "noise")
    assert png.stat().st_size <= 1_000_000
