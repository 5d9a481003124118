"""The graph of a cell: nodes, and on each edge the posterior of its operation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from pyro_relevance.plots._data import Array, one_chain, select, structure_of
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    inches,
    root_figure,
    styled,
)

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
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The nodes of a relaxed graph and, on each edge, how probable each operation is.

    Each edge carries a bar whose parts are the posterior probabilities of its operations and, above
    it, the name and probability of the most probable one. The part of ``none`` is white. An edge
    with a single operation is certain. Nodes that read nothing are the inputs; they stand above
    each other. The opacity of an arrow is one minus the probability of ``none``: an edge that is
    surely there is dark.

    Args:
        idata: What `to_arviz` returned.
        structure: Name of the structure; optional where there is only one.
        chain: The chain to draw, counted from 0.
        width: Columns of a paper.
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
    places = _places(edges, nodes)
    heights = _heights(edges, places)
    reach = max([*map(abs, heights.values()), *(abs(y) for _, y in places.values())], default=0.0)
    columns = max(x for x, _ in places.values())
    figure, ax = axes_of(ax, inches(width), 1.3 + 1.5 * reach, figsize)
    ax.set_xlim(-0.6, columns + 0.6)
    ax.set_ylim(-0.35 - reach, 0.45 + reach)
    ax.set_axis_off()
    boxes = _draw_nodes(ax, places)
    for (source, target), height in heights.items():
        curve = _curve(places[source], places[target], height)
        _draw_arrow(
            ax, curve, (boxes[source], boxes[target]), _none(edges[source, target], operations)
        )
        _draw_bar(ax, _at(curve, 0.5), edges[source, target], operations, colours)
    handles = [Patch(facecolor=colours[n], edgecolor=GREY, label=n) for n in used]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(5, len(used))
    )
    describe(figure, _caption(edges, operations, f"{len(nodes)} nodes", chain))
    return figure


_Point = tuple[float, float]
_Edges = dict[tuple[str, str], Array]
"""Source and target -> ``(num_operations,)`` probabilities."""


def _caption(edges: _Edges, operations: list[str], nodes: str, chain: int) -> str:
    best = {
        f"{source} to {target}: {operations[int(p.argmax())]} ({p.max():.2f})"
        for (source, target), p in edges.items()
    }
    return (
        f"The graph of {nodes} and {len(edges)} edges of chain {chain}. Bars: posterior "
        "probability of each operation; pale arrows: edges that are probably absent. Most probable "
        f"operations: {'; '.join(sorted(best))}."
    )


def _read(idata: Any, structure: str | None, chain: int) -> tuple[_Edges, list[str], list[str]]:
    """Return the edges of a structure, its nodes in order, and the names of all operations."""
    suffix = "_operation_probability"
    posterior = select(idata, "relevance")
    structure = structure_of(posterior, structure, suffix)
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


def _places(edges: _Edges, nodes: list[str]) -> dict[str, _Point]:
    """Return where the nodes stand: inputs above each other, the others in a line."""
    read = {target for _, target in edges}
    inputs = [name for name in nodes if name not in read]
    spread = _LEVEL * 2.2
    places = {
        name: (0.0, spread * ((len(inputs) - 1) / 2.0 - number))
        for number, name in enumerate(inputs)
    }
    others = [name for name in nodes if name in read]
    return places | {name: (2.0 * (number + 1), 0.0) for number, name in enumerate(others)}


def _heights(edges: _Edges, places: dict[str, _Point]) -> dict[tuple[str, str], float]:
    """Return how far above its chord each edge has its top, short edges first.

    Edges between neighbours are straight; longer ones are arcs, on the side of an input that stands
    above or below, else alternately.
    """
    spans = {key: round((places[key[1]][0] - places[key[0]][0]) / 2.0) for key in edges}
    levels = sorted({span for span in spans.values() if span > 1})
    heights: dict[tuple[str, str], float] = {}
    side = 1.0
    for key in sorted(edges, key=lambda key: (spans[key], places[key[0]][0])):
        heights[key] = 0.0
        if spans[key] > 1:
            start = places[key[0]][1]
            level = _LEVEL * (levels.index(spans[key]) + 1)
            heights[key] = level * (np.sign(start) or side)
            side = side if start else -side
    return heights


def _curve(start: _Point, end: _Point, height: float) -> Array:
    """Return the ``(3, 2)`` points of a curve whose middle is ``height`` above its chord."""
    a, b = np.asarray(start), np.asarray(end)
    return np.stack([a, (a + b) / 2.0 + [0.0, 2.0 * height], b])


def _at(curve: Array, t: Any) -> Array:
    """Return points of a curve, ``(*shape of t, 2)``."""
    t = np.asarray(t, dtype=float)[..., None]
    return np.asarray((1 - t) ** 2 * curve[0] + 2 * t * (1 - t) * curve[1] + t**2 * curve[2])


def _none(chances: Array, operations: list[str]) -> float:
    return float(chances[operations.index("none")]) if "none" in operations else 0.0


def _draw_nodes(ax: Axes, places: dict[str, _Point]) -> dict[str, Bbox]:
    """Write the names in boxes, and return the boxes in data coordinates."""
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#333333"}
    texts = {
        name: ax.text(*place, name, ha="center", va="center", zorder=5, bbox=box)
        for name, place in places.items()
    }
    root_figure(ax).draw_without_rendering()
    back = ax.transData.inverted()
    found = {}
    for name, text in texts.items():
        patch = text.get_bbox_patch()
        assert patch is not None
        found[name] = patch.get_window_extent().padded(2.0).transformed(back)
    return found


def _draw_arrow(ax: Axes, curve: Array, boxes: tuple[Bbox, Bbox], none: float) -> None:
    """Draw an arrow from the border of one box to that of the other, so that its head is seen."""
    t = np.linspace(0.0, 1.0, 201)
    points = _at(curve, t)
    free = [not any(box.contains(*point) for box in boxes) for point in points]
    if not any(free):
        return
    first, last = t[np.flatnonzero(free)[[0, -1]]]
    start, end = _at(curve, [first, last])
    # The control point of the part between the two: where the tangents at its ends meet.
    middle = (1 - first) * ((1 - last) * curve[0] + last * curve[1]) + first * (
        (1 - last) * curve[1] + last * curve[2]
    )
    arrow = FancyArrowPatch(
        path=Path([start, middle, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
        arrowstyle="-|>",
        mutation_scale=9,
        color="#333333",
        alpha=0.15 + 0.85 * (1.0 - none),
        zorder=1,
    )
    ax.add_patch(arrow)


def _draw_bar(
    ax: Axes, place: Array, chances: Array, operations: list[str], colours: dict[str, str]
) -> None:
    """A bar of the probabilities, and the most probable operation above it."""
    centre, height = map(float, place)
    left = centre - _BAR[0] / 2.0
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
