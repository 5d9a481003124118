"""The architecture before and after pruning, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from pyro_relevance.plots._data import described, one_chain, pooled, select
from pyro_relevance.plots._graph import graph_of, is_chain
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    inches,
    legend_below,
    styled,
)

__all__ = ["before_after"]

_Columns = list[tuple[str, int, int]]
"""Name, size before and size after of each layer."""


@styled
def before_after(
    idata: Any,
    *,
    mask: Mapping[str, Any] | None = None,
    chain: int = 0,
    threshold: float = 0.5,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Units of each layer before (pale) and after pruning (dark), from the inputs to the outputs.

    Of a chain of linear layers, units count that lie on a path of kept connections from an input to
    an output; of other networks, the edges of each group that are kept. Heights grow with the
    square root of the size, so that layers of 10 and of 500 units can both be seen.

    Args:
        idata: What `to_arviz` returned.
        mask: The kept edges (True = kept); ``None`` keeps those with p > ``threshold``.
        chain: The chain, counted from 0.
        threshold: Probability, where ``mask`` is ``None``.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If the model has no gates, or the mask does not fit it.
    """
    dataset = one_chain(select(idata, "relevance"), chain)
    columns = _columns(dataset, mask, threshold)
    figure, ax = axes_of(ax, inches(width), 2.4, figsize)
    _draw(ax, columns)
    ax.set_xlim(-0.6, len(columns) - 0.4)
    ax.set_ylim(-0.75, 0.55)
    ax.set_axis_off()
    handles = [Patch(facecolor="0.85", edgecolor=GREY), Patch(facecolor=COLOURS[0])]
    legend_below(figure, handles, ["before pruning", "after pruning"])
    sizes = "; ".join(f"{name}: {before:,} to {after:,}" for name, before, after in columns)
    describe(figure, f"The architecture before and after pruning, from inputs to outputs: {sizes}.")
    return figure


def _draw(ax: Axes, columns: _Columns) -> None:
    """Bars of the layers, and what joins them."""
    heights = np.sqrt([[before, after] for _, before, after in columns])
    heights /= heights.max()
    for number, (name, before, after) in enumerate(columns):
        for height, colour, label in zip(
            heights[number], ("0.85", COLOURS[0]), ("before", "after"), strict=True
        ):
            ax.bar(number, height, 0.5, -height / 2, color=colour, label=label, zorder=2)
        ax.annotate(
            f"{before:,} → {after:,}\n{name}",
            (number, -heights[number, 0] / 2),
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7 if len(columns) <= 8 else 5,
        )
    for number, (left, right) in enumerate(zip(heights[:, 1], heights[1:, 1], strict=False)):
        x = (number + 0.25, number + 0.75)
        corners = [(x[0], left / 2), (x[1], right / 2), (x[1], -right / 2), (x[0], -left / 2)]
        ax.add_patch(Polygon(corners, color=COLOURS[0], alpha=0.15, linewidth=0, zorder=1))


def _columns(dataset: xr.Dataset, mask: Mapping[str, Any] | None, threshold: float) -> _Columns:
    if is_chain(dataset):
        graph = graph_of(dataset, mask, threshold)
        last = len(graph.alive) - 1
        names = ["inputs", *(f"hidden {i}" for i in range(1, last)), "outputs"]
        return [
            (name, len(alive), int(alive.sum()))
            for name, alive in zip(names, graph.alive, strict=True)
        ]
    columns: _Columns = []
    for group in described(dataset, "groups"):
        name = f"{group['variable']}_inclusion_probability"
        if name not in dataset:
            raise ValueError(
                f"Expected gates of group {group['name']!r}, but got "
                f"{sorted(map(str, dataset.data_vars))}. Fit a model with gates."
            )
        kept = pooled(dataset[name]).mean(0) > threshold
        if mask is not None:
            given = mask.get(group["name"], np.ones(kept.shape, dtype=bool))
            kept = np.asarray(given.cpu() if hasattr(given, "cpu") else given).reshape(-1)
        columns.append((str(group["name"]), kept.size, int(kept.sum())))
    return columns
