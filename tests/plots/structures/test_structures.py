"""Figures of what is relevant together: what is drawn is what the posterior says."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pyro_relevance as pr
from pyro_relevance import plots
from pyro_relevance.edges.find import find_edges
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import FEATURES, FakePosterior, fake_history, fake_posterior
from tests.small_graphs import make_data, make_model


@pytest.fixture(scope="module")
def idata():
    return report.to_arviz(fake_posterior(num_chains=3), num_samples=60)


class Holder(dict):
    """The least that plots need of an ArviZ object: groups by name."""

    def __init__(self, **groups):
        super().__init__(groups)
        self.children = self


def changed(idata, **variables):
    dataset = idata["relevance"].copy(deep=True)
    for name, value in variables.items():
        dataset[name][:] = value
    return Holder(relevance=dataset)


@pytest.mark.exact
def test_correlations_are_those_within_chains(idata):
    figure = plots.gate_correlation(idata)
    gates = idata["relevance"]["inputs_gate"].to_numpy().astype(float)
    varied = np.flatnonzero(gates.std(axis=1).max(0) > 0)
    centred = (gates - gates.mean(1, keepdims=True)).reshape(-1, 13)[:, varied]
    expected = np.corrcoef(centred, rowvar=False)
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    off = ~np.eye(len(varied), dtype=bool)
    np.testing.assert_allclose(shown[off], expected[off], atol=1e-7)
    assert np.isnan(np.diag(shown)).all()
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [FEATURES[i] for i in varied]
    assert "standard error of a correlation of zero is 0.07" in plots.caption(figure)


@pytest.mark.contract
def test_gates_that_stand_for_each_other_are_seen(idata):
    gate = np.zeros((3, 60, 13))
    gate[:, ::2, 0] = gate[:, 1::2, 1] = gate[:, ::3, 2] = 1
    figure = plots.gate_correlation(changed(idata, inputs_gate=gate), max_edges=2)
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    assert shown.shape == (2, 2)
    assert shown[0, 1] == pytest.approx(-1.0)
    assert "2 of the 3 edges (of 13) whose gates vary" in plots.caption(figure)
    with pytest.raises(ValueError, match="none is. Their inclusion is sure"):
        plots.gate_correlation(changed(idata, inputs_gate=1))
    with pytest.raises(ValueError, match="Expected one chain for group '0.units', but got 3"):
        plots.gate_correlation(idata, group="0.units")
    assert plots.gate_correlation(idata, group="0.units", chain=1).axes


@pytest.mark.exact
def test_stability_has_a_column_for_each_fit(idata):
    p = idata["relevance"]["inputs_inclusion_probability"].mean("draw").to_numpy()
    figure = plots.stability([idata, idata], names=list("abcdef"), threshold=0.4)
    ax = figure.axes[0]
    order = np.lexsort((np.arange(13), -np.round(100 * p.mean(0))))
    np.testing.assert_allclose(ax.images[0].get_array(), np.tile(p[:, order], (2, 1)).T)
    counts = [f"{2 * int((p[:, i] > 0.4).sum())}/6" for i in order]
    assert [text.get_text() for text in ax.texts] == counts
    assert [text.get_text() for text in ax.get_xticklabels()] == list("abcdef")
    agreed = int(((p > 0.4).all(0) | (p <= 0.4).all(0)).sum())
    assert f"All fits agree on {agreed} of 13 edges" in plots.caption(figure)
    with pytest.raises(ValueError, match="Expected 3 names, one a fit, but got 1"):
        plots.stability(idata, names=["a"])
    with pytest.raises(ValueError, match="those of different fits are not the same ones"):
        plots.stability(idata, group="0.units")
    other = report.to_arviz(fake_posterior((5, 4, 1)), num_samples=2)
    with pytest.raises(ValueError, match="Expected the same edges of 'inputs'"):
        plots.stability([idata, other])


@pytest.mark.exact
def test_pixels_are_maps_of_probability_and_uncertainty():
    posterior = fake_posterior((24, 2, 1), ("input",))
    idata = report.to_arviz(posterior, num_samples=3)
    p = posterior.probability["inputs"].numpy().mean(0)
    figure = plots.pixels(idata, shape=(4, 6))
    first, second = (ax.images[0].get_array() for ax in figure.axes[:2])
    np.testing.assert_allclose(first, p.reshape(4, 6), rtol=1e-5)
    np.testing.assert_allclose(second, np.sqrt(p * (1 - p)).reshape(4, 6), rtol=1e-4)
    assert f"{int((p > 0.5).sum())} of 24 pixels" in plots.caption(figure)
    colours = plots.pixels(idata, shape=(2, 4, 3)).axes[0].images[0].get_array()
    np.testing.assert_allclose(colours, p.reshape(2, 4, 3).mean(0), rtol=1e-5)
    for shape in ((4, 5), (24,)):
        with pytest.raises(ValueError, match="of 24 pixels, but got"):
            plots.pixels(idata, shape=shape)


@pytest.fixture(scope="module")
def convolutional():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(180, 3)
    )
    edges = find_edges(network, example_input=torch.zeros(1, 2, 8, 8), granularity="unit")
    return FakePosterior(network, edges, 2, fake_history(2))


@pytest.mark.exact
def test_filters_are_the_kernels_the_surest_first(convolutional):
    idata = report.to_arviz(convolutional, num_samples=3)
    (name,) = convolutional.probability
    p = convolutional.probability[name][1].numpy()
    figure = plots.filters(idata, "0.weight", chain=1)
    kept = p > 0.5
    order = np.lexsort((np.arange(5), -np.round(100 * p), ~kept))
    weight = convolutional.network[0].weight.detach().numpy().mean(1)
    for ax, number in zip(figure.axes, order, strict=False):
        np.testing.assert_allclose(ax.images[0].get_array(), weight[number], rtol=1e-5)
        assert ax.get_title() == f"{p[number]:.2f}"
        assert (ax.images[0].get_alpha() == 1.0) == kept[number]
    mask = {name: np.array([True, False, False, False, False])}
    masked = plots.filters(idata, "0.weight", mask=mask)
    assert [ax.images[0].get_alpha() for ax in masked.axes] == [1.0, 0.3, 0.3, 0.3, 0.3]
    for tensor in ("3.weight", "nothing"):
        with pytest.raises(ValueError, match="Expected the name of the weight of a convolution"):
            plots.filters(idata, tensor)


@pytest.mark.exact
def test_before_and_after_count_units(idata, convolutional):
    inputs, units = np.ones(13, dtype=bool), np.zeros(12, dtype=bool)
    inputs[:3], units[:5] = False, True
    figure = plots.before_after(idata, mask={"inputs": inputs, "0.units": units})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["13 → 10\ninputs", "12 → 5\nhidden 1", "1 → 1\noutputs"]
    heights = {}
    for bar in figure.axes[0].patches:
        if hasattr(bar, "get_height"):
            heights.setdefault(bar.get_x() + 0.25, []).append(bar.get_height())
    assert heights[0.0] == pytest.approx([1.0, np.sqrt(10 / 13)])
    assert "inputs: 13 to 10; hidden 1: 12 to 5; outputs: 1 to 1" in plots.caption(figure)
    other = report.to_arviz(convolutional, num_samples=2)
    (name,) = convolutional.probability
    kept = int((convolutional.probability[name][0] > 0.5).sum())
    texts = [text.get_text() for text in plots.before_after(other).axes[0].texts]
    assert texts == [f"5 → {kept}\n{name}"]


@pytest.mark.exact
def test_architectures_are_counted_among_the_draws():
    fitted = pr.fit(make_model(), make_data(), num_epochs=3, num_chains=2, progress=False).posterior
    idata = pr.to_arviz(fitted, num_samples=50)
    figure = plots.architectures(idata, max_rows=3)
    draws = fitted.sample(50).operations
    keys = [tuple(v) for v in np.stack([d.flatten(0, 1).argmax(-1) for d in draws.values()], 1)]
    counts = sorted((keys.count(key) for key in set(keys)), reverse=True)[:3]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(widths, np.array(counts) / 100)
    assert f"3 most frequent of {len(set(keys))} architectures in 100 draws" in plots.caption(
        figure
    )
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == 3
    assert all("→" in name for name in names)
    with pytest.raises(ValueError, match="Expected structure from"):
        plots.architectures(idata, structure="other")
    with pytest.raises(ValueError, match="Expected idata with operations"):
        plots.architectures(report.to_arviz(fake_posterior(), num_samples=2))


DRAWN = {
    "gate_correlation": plots.gate_correlation,
    "stability": plots.stability,
    "before_after": plots.before_after,
    "effect_inclusion": plots.effect_inclusion,
}


@pytest.mark.contract
@pytest.mark.parametrize("name", DRAWN)
def test_figures_take_axes_and_widths_and_leave_settings(idata, name):
    before = mpl.rcParams.copy()
    figure = Figure(figsize=(4, 3), layout="constrained")
    ax = figure.subplots()
    assert DRAWN[name](idata, ax=ax) is figure
    assert ax.has_data()
    assert len(plots.caption(figure)) > 40
    for width, inches in (("single", plots.SINGLE_COLUMN), ("double", plots.DOUBLE_COLUMN)):
        drawn = DRAWN[name](idata, width=width)
        assert drawn.get_figwidth() == inches
        assert len(plots.as_png(drawn, dots=(50,))) < 1_000_000
    assert mpl.rcParams == before


@pytest.mark.exact
def test_effect_against_inclusion_has_the_border_and_names(idata):
    figure = plots.effect_inclusion(idata, threshold=0.7)
    ax = figure.axes[0]
    dataset = idata["relevance"]
    p = dataset["inputs_inclusion_probability"].to_numpy().mean((0, 1))
    effect = dataset["inputs_effect"].to_numpy().mean((0, 1))
    dots = {c.get_label(): c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1}
    kept = p > 0.7
    logit = np.log(p / (1 - p))
    np.testing.assert_allclose(dots["kept"], np.c_[effect, logit][kept], rtol=1e-4)
    np.testing.assert_allclose(dots["not kept"], np.c_[effect, logit][~kept], rtol=1e-4)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(np.log(0.7 / 0.3))
    names = [text.get_text() for text in ax.texts]
    assert len(set(names)) == len(names)
    assert set(names) <= set(FEATURES)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    with pytest.raises(ValueError, match="Expected one chain"):
        plots.effect_inclusion(idata, group="0.units")
