"""Which gates are on together, and which stand for each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, group_named, one_chain, select
from pyro_relevance.plots._style import (
    Width,
    axes_of,
    describe,
    inches,
    styled,
)

__all__ = ["gate_correlation"]


@styled
def gate_correlation(
    idata: Any,
    *,
    group: str = "inputs",
    chain: int | None = None,
    max_edges: int = 30,
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Correlations of the gates of a group over the draws of the posterior.

    Negative ones (blue) say that the posterior uses either edge, positive ones (red) that it uses
    both or none. Each chain is centred by itself, so that chains that differ are no correlation.
    Gates that no draw changes have none and are left out. A mean-field guide draws its gates
    independently: its matrix shows noise alone.

    Args:
        idata: What `to_arviz` returned.
        group: Name of the edge group.
        chain: One chain; ``None``: all, for groups of inputs alone.
        max_edges: Edges that are shown, those that vary most.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If the group has no gates that vary, or units of several chains would be pooled.
    """
    gates, labels = _gates(idata, group, chain)
    matrix, shown, varied = _correlations(gates, max_edges)
    if not len(shown):
        raise ValueError(
            f"Expected gates of {group!r} that are on in some draws and off in others, but none "
            "is. Their inclusion is sure: see plots.relevance."
        )
    side = inches(width)
    figure, ax = axes_of(ax, side, min(side, 3.4) * 0.9, figsize)
    _draw(ax, figure, matrix, [str(label) for label in labels[shown]])
    number = gates.shape[0] * gates.shape[1]
    describe(
        figure,
        f"Correlations of the gates of {group} over {number:,} draws: {len(shown)} of the {varied} "
        f"edges (of {gates.shape[2]}) whose gates vary. The standard error of a correlation of "
        f"zero is {1 / np.sqrt(number):.2f}.",
    )
    return figure


def _gates(idata: Any, group: str, chain: int | None) -> tuple[Array, Array]:
    """``(chain, draw, edge)`` gates, and the labels of the edges."""
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    name = f"{described['variable']}_gate"
    if name not in dataset:
        raise ValueError(
            f"Expected gates of group {group!r}, but got {sorted(map(str, dataset.data_vars))}. "
            "Fit a model with gates."
        )
    dataset = dataset if chain is None else one_chain(dataset, chain)
    gates = dataset[name].transpose("chain", "draw", ...).to_numpy().astype(float)
    if described["granularity"] != "input" and len(gates) > 1:
        raise ValueError(
            f"Expected one chain for group {group!r}, but got {len(gates)}: units and weights of "
            "different chains are not the same ones. Pass chain=0, say."
        )
    return gates, dataset[f"{described['variable']}_edge"].to_numpy()


def _correlations(gates: Array, max_edges: int) -> tuple[Array, Array, int]:
    """Matrix, numbers of the edges in it, and how many vary."""
    centred = (gates - gates.mean(axis=1, keepdims=True)).reshape(-1, gates.shape[2])
    spread = np.sqrt((centred**2).mean(axis=0))
    varied = np.flatnonzero(spread > 0)
    shown = np.sort(varied[np.argsort(-spread[varied], kind="stable")][:max_edges])
    scaled = centred[:, shown] / spread[shown]
    return scaled.T @ scaled / len(scaled), shown, len(varied)


def _draw(ax: Axes, figure: Figure, matrix: Array, labels: list[str]) -> None:
    # The diagonal is one for every matrix and would only outshine the rest.
    shown = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    most = max(0.1, float(np.nanmax(np.abs(shown)))) if len(matrix) > 1 else 1.0
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    ax.set_facecolor("0.85")
    size = 7.0 if len(labels) <= 15 else 5.0
    ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
    ax.set_yticks(range(len(labels)), labels, fontsize=size)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, aspect=25, pad=0.03)
    bar.set_label("Correlation of gates")
    bar.outline.set_linewidth(0.5)
