"""The graph of a cell: bars are probabilities, errors say what is missing."""

from __future__ import annotations

import importlib

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

import pyro_relevance as pr
from pyro_relevance import plots
from tests.small_fits import make_model as make_plain_model
from tests.small_fits import quick_fit
from tests.small_graphs import make_data, make_model

# The function of the same name hides the module.
cell_module = importlib.import_module("pyro_relevance.plots.cell")


@pytest.fixture(scope="module")
def fitted():
    return pr.fit(make_model(), make_data(), num_epochs=10, gate_learning_rate=0.1, num_chains=2)


@pytest.fixture(scope="module")
def idata(fitted):
    return pr.to_arviz(fitted.posterior, num_samples=10)


def bars(figure):
    """Return the width of each part of each bar, by the height and left end of the bar."""
    return sorted(
        (patch.get_y(), patch.get_x(), patch.get_width())
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle)
    )


@pytest.mark.exact
@pytest.mark.parametrize("chain", [0, 1])
def test_parts_of_bars_are_the_probabilities_of_the_chain(idata, fitted, chain):
    figure = plots.cell(idata, chain=chain)
    widths = sorted(width for _, _, width in bars(figure))
    full = max(widths)  # the edge that is certain
    expected = [1.0]
    for chances in fitted.posterior.operation_probability().values():
        expected += [float(p) for p in chances[chain]]
    np.testing.assert_allclose(np.array(widths) / full, sorted(expected), atol=1e-6)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"x", "a", "h", "y", "linear 1.00"} <= set(texts)


@pytest.mark.contract
def test_the_figure_has_a_legend_and_leaves_settings_alone(idata, tmp_path):
    before = dict(mpl.rcParams)
    figure = plots.cell(idata, structure="graph")
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {"relu", "tanh", "none", "linear", "linear_tanh"}
    plots.save(figure, tmp_path / "cell")
    assert {path.name for path in tmp_path.iterdir()} == {"cell.pdf", "cell.png"}
    assert dict(mpl.rcParams) == before


@pytest.mark.contract
def test_what_is_missing_is_told(idata):
    with pytest.raises(ValueError, match=r"Expected structure from \['graph'\], but got 'cell'"):
        plots.cell(idata, structure="cell")
    plain = pr.to_arviz(quick_fit(make_plain_model()).posterior, num_samples=3)
    with pytest.raises(ValueError, match="Expected idata with operations of relaxed graphs"):
        plots.cell(plain)


@pytest.mark.exact
def test_arrows_end_at_the_border_of_nodes_and_inputs_stand_above_each_other():
    edges = {("p", "a"): 1, ("q", "a"): 1, ("p", "b"): 1, ("a", "b"): 1}
    places = cell_module._places(edges, ["p", "q", "a", "b"])
    assert places["p"][0] == places["q"][0] == 0.0
    assert places["p"][1] == -places["q"][1] > 0.4
    assert (places["a"], places["b"]) == ((2.0, 0.0), (4.0, 0.0))
    heights = cell_module._heights(edges, places)
    assert heights["p", "a"] == heights["a", "b"] == 0.0
    assert heights["p", "b"] > 0.0


@pytest.mark.exact
def test_heads_of_arrows_are_seen(idata):
    figure = plots.cell(idata)
    (ax,) = figure.axes
    figure.draw_without_rendering()
    nodes = [text for text in ax.texts if text.get_text() in ("x", "a", "h", "y")]
    boxes = [text.get_bbox_patch().get_window_extent() for text in nodes]
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 4
    for arrow in arrows:
        start, _, end = ax.transData.transform(arrow._path_original.vertices)
        assert start[0] < end[0]
        for box in boxes:
            assert not box.contains(*start)
            assert not box.contains(*end)
        assert min(abs(box.x0 - end[0]) + abs(box.y0 - end[1]) for box in boxes) < 40


@pytest.mark.contract
def test_the_caption_names_the_most_probable_operations(idata):
    assert "Most probable operations: " in plots.caption(plots.cell(idata))
