"""The graph of a cell: nodes, and on each edge the posterior of its operation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch
from matplotlib.path import Path

from pyro_relevance.plots._data import Array, one_chain, select
from pyro_relevance.plots._style import COLOURS, DOUBLE_COLUMN, GREY, figure_of, root_figure, styled

__all__ = ["cell"]

_LEVEL = 0.42
_BAR = (0.62, 0.11)
_MORE = ("#999933", "#882255", "#44AA99", "#332288")


@styled
def cell(
    idata: Any,
    *,
    structure: str | None = None,
    chain: int = 0,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The nodes of a relaxed graph and, on each edge, how probable each operation is.

    Each edge carries a bar whose parts are the posterior probabilities of its operations and, above
    it, the name and probability of the most probable one. The part of ``none`` is white. An edge
    with a single operation is certain. The opacity of an arrow is one minus the probability of
    ``none``: an edge that is surely there is dark.

    Args:
        idata: What `to_arviz` returned.
        structure: Name of the structure; optional where there is only one.
        chain: The chain to draw, counted from 0.
        figsize: Width and height, inches.
        ax: Axes to draw on; by default those of a new figure.

    Raises:
        ValueError: If ``idata`` has no operations, or no such structure or chain.
    """
    edges, nodes, operations = _read(idata, structure, chain)
    used = [o for k, o in enumerate(operations) if any(p[k] > 0 for p in edges.values())]
    palette = [*COLOURS, *_MORE]
    colours = {
        name: palette[i % len(palette)] for i, name in enumerate(n for n in used if n != "none")
    }
    colours["none"] = "white"
    heights = _heights(edges, nodes)
    reach = max(map(abs, heights.values()), default=0.0)
    if ax is None:
        figure = figure_of(DOUBLE_COLUMN, 1.2 + 1.6 * reach, figsize)
        ax = figure.subplots()
    else:
        figure = root_figure(ax)
    positions = {name: 2.0 * index for index, name in enumerate(nodes)}
    for (source, target), height in heights.items():
        ends = positions[source], positions[target]
        _draw_edge(ax, ends, height, edges[source, target], operations, colours)
    _draw_nodes(ax, positions)
    handles = [Patch(facecolor=colours[n], edgecolor=GREY, label=n) for n in used]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(5, len(used))
    )
    ax.set_xlim(-0.6, 2.0 * (len(nodes) - 1) + 0.6)
    ax.set_ylim(-0.35 - reach, 0.45 + reach)
    ax.set_axis_off()
    return figure


_Edges = dict[tuple[str, str], Array]
"""Source and target -> ``(num_operations,)`` probabilities."""


def _read(idata: Any, structure: str | None, chain: int) -> tuple[_Edges, list[str], list[str]]:
    """Return the edges of a structure, its nodes in order, and the names of all operations."""
    suffix = "_operation_probability"
    posterior = select(idata, "relevance")
    known = [str(n).removesuffix(suffix) for n in posterior.data_vars if str(n).endswith(suffix)]
    if not known:
        raise ValueError(
            "Expected idata with operations of relaxed graphs, but its posterior has none. Fit a "
            "model whose edges are found with granularity='operation'."
        )
    if structure is None and len(known) > 1 or structure not in (None, *known):
        raise ValueError(f"Expected structure from {known}, but got {structure!r}.")
    structure = structure or known[0]
    variable = one_chain(posterior, chain)[f"{structure}{suffix}"]
    mean = variable.mean(("chain", "draw"))
    table: Array = np.asarray(mean.transpose("source", "target", "operation").values)
    sources, targets, operations = (
        [str(name) for name in mean.coords[dim].values] for dim in ("source", "target", "operation")
    )
    graph = json.loads(posterior.attrs["pyro_relevance_graphs"])[structure]
    edges: _Edges = {}
    for source, target, only in graph["edges"]:
        if only is not None:  # nothing is decided there
            operations += [] if only in operations else [only]
            edges[source, target] = np.array([float(name == only) for name in operations])
        else:
            edges[source, target] = table[sources.index(source), targets.index(target)]
    padded = {
        key: np.nan_to_num(np.pad(chances, (0, len(operations) - len(chances))))
        for key, chances in edges.items()
    }
    return padded, graph["nodes"], operations


def _heights(edges: _Edges, nodes: list[str]) -> dict[tuple[str, str], float]:
    """Return how far above the nodes each edge has its top, short edges first.

    Edges between neighbours are straight; longer ones are arcs, alternately above and below.
    """
    spans = {key: nodes.index(key[1]) - nodes.index(key[0]) for key in edges}
    levels = sorted({span for span in spans.values() if span > 1})
    heights: dict[tuple[str, str], float] = {}
    side = 1.0
    for key in sorted(edges, key=lambda key: (spans[key], nodes.index(key[0]))):
        heights[key] = 0.0
        if spans[key] > 1:
            heights[key] = side * _LEVEL * (levels.index(spans[key]) + 1)
            side = -side
    return heights


def _draw_nodes(ax: Axes, positions: dict[str, float]) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#333333"}
    for name, position in positions.items():
        ax.text(position, 0.0, name, ha="center", va="center", zorder=5, bbox=box)


def _draw_edge(
    ax: Axes,
    ends: tuple[float, float],
    height: float,
    chances: Array,
    operations: list[str],
    colours: dict[str, str],
) -> None:
    """An arrow with a bar in its middle, ``height`` above the nodes."""
    none = chances[operations.index("none")] if "none" in operations else 0.0
    start, end = ends
    # The curve with this control point has its top at `height`.
    points = [(start, 0.0), ((start + end) / 2.0, 2.0 * height), (end, 0.0)]
    arrow = FancyArrowPatch(
        path=Path(points, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
        arrowstyle="-|>",
        mutation_scale=8,
        shrinkA=12,
        shrinkB=12,
        color="#333333",
        alpha=float(0.15 + 0.85 * (1.0 - none)),
        zorder=1,
    )
    ax.add_patch(arrow)
    centre, left = (start + end) / 2.0, (start + end) / 2.0 - _BAR[0] / 2.0
    for name, chance in zip(operations, chances, strict=True):
        if chance > 0:
            ax.barh(
                height,
                chance * _BAR[0],
                _BAR[1],
                left=left,
                color=colours[name],
                edgecolor=GREY,
                linewidth=0.4,
                zorder=3,
            )
            left += chance * _BAR[0]
    best = int(chances.argmax())
    ax.text(
        centre,
        height + 0.09,
        f"{operations[best]} {chances[best]:.2f}",
        ha="center",
        va="bottom",
        fontsize=6,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    )
