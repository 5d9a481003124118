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
    order = np.argsort(-mean, kind="stable")
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
    order = np.argsort(-probability.mean((0, 1)), kind="stable")
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


def test_many_rows_share_labels_and_a_page():
    idata = report.to_arviz(fake_posterior((300, 2, 1), ("input",)), num_samples=2)
    figure = plots.relevance(idata)
    assert figure.get_figheight() <= 9
    assert len(labels(figure.axes[0])) <= 100
    assert len(labelled(figure.axes[0], "mean (").get_offsets()) == 300


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
