from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from pyro_relevance import plots
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import FEATURES, fake_posterior

CHAINS = 2


@pytest.fixture(scope="module")
def idata():
    return report.to_arviz(fake_posterior(num_chains=CHAINS), num_samples=40)


@pytest.fixture
def probability(idata):
    return idata["relevance"]["inputs_inclusion_probability"].to_numpy()


def labelled(ax, label):
    found = [artist for artist in ax.collections if artist.get_label().startswith(label)]
    assert len(found) == 1
    return found[0]


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_rows_are_the_features_from_the_most_relevant(idata, probability):
    figure = plots.relevance(idata)
    mean = probability.mean((0, 1))
    order = np.lexsort((np.arange(13), -np.round(100 * mean)))
    assert labels(figure.axes[0]) == [FEATURES[i] for i in order]
    drawn = labelled(figure.axes[0], "mean (").get_offsets()
    np.testing.assert_allclose(drawn[:, 0], mean[order], rtol=1e-5)
    np.testing.assert_array_equal(drawn[:, 1], np.arange(13))


def test_order_of_the_network_without_sorting(idata):
    assert labels(plots.relevance(idata, sort=False).axes[0]) == list(FEATURES)


def test_intervals_hold_89_percent_of_all_draws(idata):
    figure = plots.relevance(idata, sort=False)
    effect = idata["relevance"]["inputs_effect"].to_numpy().reshape(-1, 13)
    ends = np.quantile(effect, [0.055, 0.945], axis=0)
    segments = np.stack(labelled(figure.axes[1], "89 % interval").get_segments())
    np.testing.assert_allclose(segments[:, :, 0].T, ends)


def test_a_probability_that_no_draw_changes_has_a_range_over_chains(idata, probability):
    figure = plots.relevance(idata, sort=False)
    segments = np.stack(labelled(figure.axes[0], "range over chains").get_segments())
    ends = [probability.min((0, 1)), probability.max((0, 1))]
    np.testing.assert_allclose(segments[:, :, 0].T, ends)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"range over chains", "89 % interval"} <= set(names)


def test_small_dots_are_the_single_chains(idata, probability):
    ax = plots.relevance(idata, sort=False).axes[0]
    drawn = labelled(ax, "mean of one chain").get_offsets()
    assert len(drawn) == CHAINS * 13
    np.testing.assert_allclose(drawn[:, 0], probability.mean(1).ravel(), rtol=1e-5)


def test_dots_above_the_threshold_are_filled(idata, probability):
    ax = plots.relevance(idata, sort=False, threshold=0.9).axes[0]
    faces = labelled(ax, "mean (").get_facecolors()
    filled = ~(faces[:, :3] == 1).all(axis=1)
    np.testing.assert_array_equal(filled, probability.mean((0, 1)) > 0.9)
    (line,) = ax.lines
    assert line.get_xdata() == [0.9, 0.9]


def test_effect_stands_beside(idata, probability):
    figure = plots.relevance(idata)
    assert len(figure.axes) == 2
    assert "Effect" in figure.axes[1].get_xlabel()
    order = np.lexsort((np.arange(13), -np.round(100 * probability.mean((0, 1)))))
    effect = idata["relevance"]["inputs_effect"].to_numpy().mean((0, 1))
    drawn = labelled(figure.axes[1], "mean (").get_offsets()
    np.testing.assert_allclose(drawn[:, 0], effect[order], rtol=1e-5)


def test_effect_alone_has_no_threshold(idata):
    figure = plots.relevance(idata, var_name="effect")
    assert len(figure.axes) == 1
    assert not figure.axes[0].lines


def test_gates_may_stand_for_probabilities(idata):
    ax = plots.relevance(idata, var_name="gate", sort=False).axes[0]
    gate = idata["relevance"]["inputs_gate"].to_numpy().mean((0, 1))
    np.testing.assert_allclose(labelled(ax, "mean (").get_offsets()[:, 0], gate)


def test_coords_choose_rows(idata):
    figure = plots.relevance(idata, coords={"inputs_edge": ["RM", "CRIM"]}, sort=False)
    assert labels(figure.axes[0]) == ["RM", "CRIM"]
    assert labels(plots.relevance(idata, coords={"inputs_edge": "RM"}).axes[0]) == ["RM"]


def test_hidden_units_need_one_chain(idata):
    with pytest.raises(ValueError, match=r"Expected one chain for group '0.units', but got 2"):
        plots.relevance(idata, group="0.units")
    ax = plots.relevance(idata, group="0.units", coords={"chain": 1}, sort=False).axes[0]
    drawn = labelled(ax, "mean (").get_offsets()[:, 0]
    units = idata["relevance"]["layer_0_units_inclusion_probability"].to_numpy()
    np.testing.assert_allclose(drawn, units[1].mean(0), rtol=1e-5)
    assert all(not artist.get_label().startswith("mean of") for artist in ax.collections)


def test_many_inputs_have_pages_on_which_every_row_is_named():
    posterior = fake_posterior((130, 2, 1), ("input",))
    idata = report.to_arviz(posterior, num_samples=2)
    mean = posterior.probability["inputs"].numpy().mean(0)
    order = np.lexsort((np.arange(130), -np.round(100 * mean)))
    names = idata["relevance"]["inputs_edge"].to_numpy()[order].tolist()
    pages = [plots.relevance(idata, page=page) for page in (1, 2, 3)]
    assert sum((labels(figure.axes[0]) for figure in pages), []) == names
    assert labels(plots.relevance(idata).axes[0]) == names[:50]
    assert pages[0].axes[0].get_title(loc="left") == "50 of 130 edges"
    assert "50 of 130" in plots.caption(pages[0])
    assert pages[0].get_figheight() < 9.5
    for page in (0, 4):
        with pytest.raises(ValueError, match=f"Expected page from 1 to 3 .* but got {page}"):
            plots.relevance(idata, page=page)


def test_many_units_are_a_curve_over_their_rank():
    posterior = fake_posterior((3, 500, 1), ("unit",), num_chains=1)
    idata = report.to_arviz(posterior, num_samples=20)
    figure = plots.relevance(idata, group="0.units")
    ax = figure.axes[0]
    mean = posterior.probability["0.units"].numpy()[0]
    order = np.lexsort((np.arange(500), -np.round(100 * mean)))
    dots = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1])
    dots = dots[np.argsort(dots[:, 0])]
    np.testing.assert_allclose(dots[:, 0], np.arange(1, 501))
    np.testing.assert_allclose(dots[:, 1], mean[order], rtol=1e-5)
    assert "all 500, by rank" in plots.caption(figure)
    paged = plots.relevance(idata, group="0.units", page=2, max_rows=20)
    assert len(labels(paged.axes[0])) == 20


def test_ties_are_not_sorted_by_noise(idata):
    dataset = idata["relevance"].copy(deep=True)
    values = dataset["inputs_inclusion_probability"]
    values[:] = 1 - 1e-4 * np.random.default_rng(0).uniform(size=13)
    holder = type("Holder", (dict,), {})(relevance=dataset)
    holder.children = holder
    assert labels(plots.relevance(holder).axes[0]) == list(FEATURES)


@pytest.mark.parametrize("width", ["single", "double"])
def test_no_legend_is_cut_off(idata, width):
    figure = plots.relevance(idata, width=width)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    with pytest.raises(ValueError, match="Expected width in"):
        plots.relevance(idata, width="triple")


def test_own_axes_get_one_panel(idata):
    figure = Figure()
    ax = figure.subplots()
    assert plots.relevance(idata, ax=ax) is figure
    assert figure.axes == [ax]
    assert labels(ax)


def test_width_is_that_of_both_columns(idata):
    assert plots.relevance(idata).get_figwidth() == plots.DOUBLE_COLUMN
    assert plots.relevance(idata, figsize=(3, 2)).get_size_inches().tolist() == [3, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "input"}, r"Expected group in \['inputs', '0.units'\], but got 'input'"),
        ({"var_name": "score"}, "Expected a variable among .* but got 'inputs_score'"),
        ({"coords": {"inputs_edge": ["R"]}}, "Name labels that exist"),
        ({"coords": {"feature": ["RM"]}}, "Name labels that exist"),
    ],
)
def test_wrong_names_say_what_there_is(idata, options, message):
    with pytest.raises(ValueError, match=message):
        plots.relevance(idata, **options)


def test_settings_stay_and_no_window_opens(idata):
    before = mpl.rcParams.copy()
    plots.relevance(idata).draw_without_rendering()
    assert mpl.rcParams == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
