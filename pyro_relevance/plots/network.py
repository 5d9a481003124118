"""The network as a graph: which connections are included, how surely, and which are pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_relevance.plots._data import Array, one_chain, select, weight_of
from pyro_relevance.plots._graph import Graph, Layer, graph_of, is_chain
from pyro_relevance.plots._layers import Weights, draw_layers, weights_of
from pyro_relevance.plots._matrix import COLOURMAP, draw_matrices
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    figure_of,
    inches,
    legend_below,
    root_figure,
    styled,
)

__all__ = ["network"]

View = Literal["auto", "graph", "matrix", "weights", "layers"]
"""What is drawn of a network."""

_NODE = "#333333"
_PITCH = (0.15, 0.085)
_FAINTEST = 0.2


@styled
def network(
    idata: Any,
    *,
    mask: Mapping[str, Any] | None = None,
    chain: int = 0,
    threshold: float = 0.5,
    input_labels: Sequence[str] | None = None,
    view: View = "auto",
    max_units: int = 60,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The network of one chain: which connections are included, how surely, and which are pruned.

    There are three views. The *graph* of a chain of linear layers has inputs on the left, outputs
    on the right. A connection is coloured by the probability p that it is included: the product,
    within each draw, of the probabilities of all gates on it. Its opacity is 0.2 + 0.8 (1 - 4 p
    (1 - p)), least at p = 1/2. Removed connections are dashed and thin. A node is hollow where no
    kept connections lead from an input through it to an output. *Matrices* show the same where
    lines would hide each other: a row for a unit, a column for what it reads, pruned connections
    faint. *Layers* show any network, such as a convolutional or residual one: a row for each
    weight, its connections by probability, and the share that is kept.

    Args:
        idata: What `to_arviz` returned.
        mask: The kept edges (True = kept); ``None`` keeps those with p > ``threshold``.
        threshold: Probability, where ``mask`` is ``None``.
        chain: The chain to draw, counted from 0; hidden units differ between chains.
        input_labels: Names of the input columns; ``None`` takes those of the group of inputs.
        view: ``"graph"``, ``"matrix"``, ``"weights"`` (matrices of sign and size), ``"layers"``, or
            ``"auto"``: the graph where no two neighbouring layers have more than ``max_units``
            nodes together, else matrices, and layers for networks that are no chain of layers.
        max_units: Nodes as above; in a graph it is the most that is drawn of a layer, evenly spaced
            ones, as the figure says. The counts are those of the whole layer.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw the graph or the layers into these axes; their figure is returned.

    Raises:
        ValueError: If the view does not fit the network, or an argument does not fit it.
    """
    _check(view, max_units)
    dataset = one_chain(select(idata, "relevance"), chain)
    by_threshold = f"pruned: probability at most {threshold:g}"
    pruned = by_threshold if mask is None else "pruned by the mask"
    if view == "layers" or (view == "auto" and not is_chain(dataset)):
        return _layers(weights_of(dataset, mask, threshold), width, figsize, ax)
    graph = graph_of(dataset, mask, threshold)
    labels = _names(graph, input_labels)
    sizes = [len(alive) for alive in graph.alive]
    crowded = max(a + b for a, b in zip(sizes, sizes[1:], strict=False)) > max_units
    if view in ("matrix", "weights") or (view == "auto" and crowded and ax is None):
        figure = figure_of(inches(width), _matrix_height(sizes), figsize)
        weights = _weights(idata, graph, chain) if view == "weights" else ()
        draw_matrices(figure, graph, labels, pruned, weights)
    else:
        figure = _graph(graph, labels, pruned, (max_units, width, figsize, ax))
    describe(figure, _caption(graph, pruned, "weight" if view == "weights" else "inclusion"))
    return figure


def _check(view: str, max_units: int) -> None:
    if max_units < 1:
        raise ValueError(
            f"Expected max_units >= 1, but got {max_units}. Pass how many nodes to draw per layer."
        )
    if view not in get_args(View):
        raise ValueError(
            f"Expected view in {list(get_args(View))}, but got {view!r}. Choose one of them."
        )


def _names(graph: Graph, input_labels: Sequence[str] | None) -> tuple[str, ...]:
    labels = graph.labels if input_labels is None else tuple(input_labels)
    if labels and len(labels) != len(graph.alive[0]):
        raise ValueError(
            f"Expected {len(graph.alive[0])} input_labels, but got {len(labels)}. Name every "
            "input column."
        )
    return labels


def _graph(
    graph: Graph,
    labels: Sequence[str],
    pruned: str,
    layout: tuple[int, Width, tuple[float, float] | None, Axes | None],
) -> Figure:
    """Draw nodes and lines."""
    max_units, width, figsize, ax = layout
    shown = [_shown(len(alive), max_units) for alive in graph.alive]
    tallest = max(map(len, shown))
    figure, ax = axes_of(ax, inches(width), _height(tallest), figsize)
    heights = [_heights(len(nodes), tallest) for nodes in shown]
    for column, layer in enumerate(graph.layers):
        _draw_connections(
            ax, layer, column, shown[column : column + 2], heights[column : column + 2]
        )
    _draw_nodes(ax, graph, shown, heights)
    _label_inputs(ax, labels, shown[0], heights[0])
    _caption_columns(ax, graph, shown)
    _finish(ax, figure, len(graph.layers), pruned)
    return figure


def _layers(
    weights: Sequence[Weights],
    width: Width,
    figsize: tuple[float, float] | None,
    ax: Axes | None,
) -> Figure:
    """Draw any network as a list of its weights."""
    if ax is None:
        pitch = 0.19 if len(weights) <= 25 else 0.14
        figure = figure_of(inches(width), 1.0 + pitch * len(weights), figsize)
        ax = figure.subplots()
    else:
        figure = root_figure(ax)
    draw_layers(ax, figure, weights)
    kept, total = sum(one.kept for one in weights), sum(one.total for one in weights)
    describe(
        figure,
        f"The {len(weights)} weights of the network from the inputs to the outputs. Bars: their "
        "connections by inclusion probability, the surest ones on the left (dark); black marks: "
        f"the share that is kept. {kept:,} of {total:,} connections are kept.",
    )
    return figure


def _weights(idata: Any, graph: Graph, chain: int) -> list[Array]:
    found = [weight_of(idata, layer.name, chain) for layer in graph.layers]
    known = [weight for weight in found if weight is not None]
    if len(known) < len(found):
        raise ValueError(
            "Expected weights in 'point_estimates' or 'posterior', but got none of some layers. "
            "Convert with to_arviz(sites=True), or draw another view."
        )
    return known


def _caption(graph: Graph, pruned: str, colour: str) -> str:
    colour = "inclusion probability" if colour == "inclusion" else "sign and size of the weights"
    kept = sum(int(layer.kept.sum()) for layer in graph.layers)
    total = sum(layer.kept.size for layer in graph.layers)
    counts = [f"{int(alive.sum())} of {len(alive)}" for alive in graph.alive]
    middle = "".join(f", {count} units of hidden layer {i + 1}" for i, count in
                     enumerate(counts[1:-1]))  # fmt: skip
    return (
        f"The network from the inputs to the outputs, coloured by {colour} "
        f"({pruned}). {kept:,} of {total:,} connections are kept; on a path from an input to an "
        f"output lie {counts[0]} inputs{middle} and {counts[-1]} outputs."
    )


def _matrix_height(sizes: Sequence[int]) -> float:
    """Height of the figure, inches: taller for more units."""
    return float(np.clip(1.6 + 0.045 * max(sizes[1:]), 2.4, 6.5))


def _shown(num_nodes: int, max_units: int) -> Array:
    """Indices of the nodes that are drawn, evenly spaced."""
    if num_nodes <= max_units:
        return np.arange(num_nodes)
    return np.linspace(0, num_nodes - 1, max_units).round().astype(int)


def _height(tallest: int) -> float:
    """Height of the figure, inches: wide rows for few nodes, narrow ones beyond twenty."""
    return max(2.4, 1.1 + _PITCH[0] * min(tallest, 20) + _PITCH[1] * max(tallest - 20, 0))


def _heights(num_nodes: int, tallest: int) -> Array:
    """Vertical positions, the first node on top. Short layers are stretched, within reason."""
    pitch = min((tallest - 1) / max(num_nodes - 1, 1), 2.5) if tallest > 1 else 1.0
    return -pitch * (np.arange(num_nodes) - (num_nodes - 1) / 2)


def _draw_connections(
    ax: Axes, layer: Layer, column: int, shown: Sequence[Array], heights: Sequence[Array]
) -> None:
    """Two collections: pruned connections below, kept ones above, the most probable on top."""
    probability = layer.probability[np.ix_(shown[1], shown[0])].ravel()
    kept = layer.kept[np.ix_(shown[1], shown[0])].ravel()
    ends = np.stack(np.broadcast_arrays(heights[1][:, None], heights[0][None, :]), -1).reshape(
        -1, 2
    )
    opacity = _FAINTEST + (1 - _FAINTEST) * (1 - 4 * probability * (1 - probability))
    # a crowd of lines hides itself unless each is thinner
    crowd = min(1.0, 12.0 / np.sqrt(len(probability)))
    for keep in (False, True):
        chosen = np.flatnonzero(kept == keep)
        chosen = chosen[np.argsort(probability[chosen], kind="stable")]
        lines = np.empty((len(chosen), 2, 2))
        lines[:, :, 0] = column, column + 1
        lines[:, 0, 1], lines[:, 1, 1] = ends[chosen, 1], ends[chosen, 0]
        collection = LineCollection(
            list(lines),
            cmap=COLOURMAP,
            norm=Normalize(0, 1),
            linewidths=max(1.3 * crowd, 0.3) if keep else 0.35,
            linestyles="solid" if keep else (0, (4, 4)),
            zorder=2 if keep else 1,
            label=f"{'kept' if keep else 'pruned'} {layer.name}",
        )
        collection.set_array(probability[chosen])
        if len(chosen):  # matplotlib looks for the range of the opacities
            collection.set_alpha(opacity[chosen] * (1.0 if keep else 0.6 * crowd))
        ax.add_collection(collection)


def _draw_nodes(ax: Axes, graph: Graph, shown: Sequence[Array], heights: Sequence[Array]) -> None:
    """One scatter per column: full where alive, hollow where not."""
    for column, (alive, nodes, positions) in enumerate(
        zip(graph.alive, shown, heights, strict=True)
    ):
        ax.scatter(
            np.full(len(nodes), column),
            positions,
            s=18 if max(map(len, shown)) <= 30 else 9,
            facecolors=[_NODE if alive[node] else "white" for node in nodes],
            edgecolors=[_NODE if alive[node] else GREY for node in nodes],
            linewidths=0.7,
            zorder=3,
            label=f"nodes {column}",
        )


def _label_inputs(ax: Axes, labels: Sequence[str], nodes: Array, positions: Array) -> None:
    """One name per run of neighbouring columns that share it, left of their middle."""
    if not labels:
        return
    names = [labels[node] for node in nodes]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    for start, stop in zip(starts, [*starts[1:], len(names)], strict=True):
        ax.annotate(
            names[start],
            (0, float(positions[start:stop].mean())),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7 if len(names) <= 40 else 5,
        )


def _caption_columns(ax: Axes, graph: Graph, shown: Sequence[Array]) -> None:
    """Below each column what it is and how many of its nodes stay; on top, what is not drawn."""
    last = len(graph.alive) - 1
    titles = [{0: "inputs", last: "outputs"}.get(i, f"hidden {i}") for i in range(last + 1)]
    for column, (title, alive) in enumerate(zip(titles, graph.alive, strict=True)):
        ax.annotate(
            f"{title}\n{int(alive.sum())} of {len(alive)} kept",
            (column, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -2),
            textcoords="offset points",
            ha="center",
            va="top",
        )
    thinned = [
        f"{len(nodes)} of {len(alive)} {title}"
        for title, alive, nodes in zip(titles, graph.alive, shown, strict=True)
        if len(nodes) < len(alive)
    ]
    if thinned:
        note = (
            f"Drawn: {', '.join(thinned)} nodes, evenly spaced;\nthe counts below are of all nodes."
        )
        ax.set_title(note, fontsize=7, color=COLOURS[1])


def _finish(ax: Axes, figure: Figure, columns: int, pruned: str) -> None:
    """Colour bar, legend and the space around."""
    ax.set_xlim(-0.15, columns + 0.15)
    ax.autoscale_view(scalex=False)
    ax.margins(y=0.03)
    ax.set_axis_off()
    scale = ScalarMappable(norm=Normalize(0, 1), cmap=colormaps[COLOURMAP])
    bar = figure.colorbar(scale, ax=ax, shrink=0.8, aspect=25, pad=0.02)
    bar.set_label("Inclusion probability")
    bar.outline.set_linewidth(0.5)
    sure, unsure, out = (colormaps[COLOURMAP](p) for p in (0.95, 0.6, 0.25))
    handles = [
        Line2D([], [], color=sure, linewidth=1.3, label="kept"),
        Line2D([], [], color=unsure, linewidth=1.3, alpha=0.3, label="faint: uncertain"),
        Line2D([], [], color=out, linewidth=0.6, linestyle=(0, (4, 4)), label=pruned),
        Line2D(
            [],
            [],
            color=GREY,
            marker="o",
            markersize=4,
            markerfacecolor="white",
            linestyle="",
            label="pruned node",
        ),
    ]
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles])
