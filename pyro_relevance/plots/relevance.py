"""How relevant the edges of one group are, as a forest: inclusion probability and effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import INTERVAL, Array, group_named, pooled, quantiles, select
from pyro_relevance.plots._style import (
    COLOURS,
    DOUBLE_COLUMN,
    GREY,
    SINGLE_COLUMN,
    figure_of,
    root_figure,
    styled,
)

__all__ = ["relevance"]

_ROW = 0.16
_MAX_HEIGHT = 9.0


def _panels(
    num_rows: int, with_effect: bool, figsize: tuple[float, float] | None, ax: Axes | None
) -> tuple[Figure, list[Axes]]:
    """Return the figure and its one or two panels."""
    if ax is not None:
        return root_figure(ax), [ax]
    height = min(0.75 + _ROW * num_rows, _MAX_HEIGHT)
    width = DOUBLE_COLUMN if with_effect else SINGLE_COLUMN
    figure = figure_of(width, max(height, 1.2), figsize)
    axes = figure.subplots(1, 2 if with_effect else 1, sharey=True, squeeze=False)[0]
    return figure, axes.tolist()


@styled
def relevance(
    idata: Any,
    *,
    group: str = "inputs",
    var_name: str = "inclusion_probability",
    coords: Mapping[str, Any] | None = None,
    sort: bool = True,
    threshold: float = 0.5,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A forest plot of one edge group, one row per edge.

    The dot is the mean over chains and draws, filled above ``threshold``; the bar is the 89 %
    equal-tailed interval over them, or the range over chains of a probability that no draw changes;
    small dots are the means of single chains. The panel beside it shows the edge's effect (norm of
    the gated weights that read it) in the same way.

    Args:
        idata: What `to_arviz` returned.
        group: Name of the edge group, such as ``"inputs"`` or ``"0.units"``.
        var_name: ``"inclusion_probability"``, ``"gate"``, or ``"effect"``, which is shown alone.
        coords: Labels to show, e.g. ``{"inputs_edge": ["RM"], "chain": 0}``; ``None``: all. Groups
            other than inputs need one chain.
        sort: Most relevant edge at the top; otherwise the order of the network.
        threshold: Where the line is drawn.
        figsize: Width and height, inches; ``None`` for two columns and a height by the rows.
        ax: Draw the first panel alone into these axes; their figure is returned.

    Raises:
        ValueError: If a name does not exist, or units of several chains would be pooled.

    References:
        Barbieri and Berger, Optimal predictive model selection, Annals of Statistics 2004 (the
        median probability model: threshold 1/2).
    """
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    stem = described["variable"]
    first = _variable(dataset, f"{stem}_{var_name}", coords)
    if described["granularity"] != "input" and first.sizes["chain"] > 1:
        raise ValueError(
            f"Expected one chain for group {group!r}, but got {first.sizes['chain']}: units and "
            "weights of different chains are not the same ones. Pass coords={'chain': 0}, say."
        )
    with_effect = ax is None and var_name != "effect" and f"{stem}_effect" in dataset
    mean = pooled(first).mean(axis=0)
    order = np.argsort(-mean, kind="stable") if sort else np.arange(len(mean))
    labels = first[f"{stem}_edge"].to_numpy()[order]
    figure, axes = _panels(len(order), with_effect, figsize, ax)
    kept = mean[order] > threshold if var_name != "effect" else np.ones(len(order), dtype=bool)
    _rows(axes[0], first, order, kept)
    _finish(axes[0], var_name, threshold)
    if with_effect:
        _rows(axes[1], _variable(dataset, f"{stem}_effect", coords), order, kept)
        _finish(axes[1], "effect", threshold)
        axes[1].tick_params(axis="y", length=0)
        _legend(figure, axes)
    _label_rows(axes[0], labels, figure)
    return figure


def _variable(dataset: xr.Dataset, name: str, coords: Mapping[str, Any] | None) -> xr.DataArray:
    """One variable, restricted to ``coords``; always with an edge dimension."""
    if name not in dataset:
        raise ValueError(
            f"Expected a variable among {sorted(map(str, dataset.data_vars))}, but got {name!r}. "
            "Choose another var_name."
        )
    array = dataset[name]
    for dim, wanted in (coords or {}).items():
        known = array[dim].to_numpy().tolist() if dim in array.dims else []
        labels = [wanted] if np.ndim(wanted) == 0 else list(wanted)
        missing = [label for label in labels if label not in known]
        if dim not in array.dims or missing:
            raise ValueError(
                f"Expected coords of dims {list(array.dims)} with labels {known[:20]}, but got "
                f"{dict(coords or {})}. Name labels that exist."
            )
        array = array.sel({dim: labels})
    return array


def _rows(ax: Axes, array: xr.DataArray, order: Array, kept: Array) -> None:
    """Interval, single chains and mean of each edge, from top to bottom."""
    values = pooled(array)[:, order]
    rows = np.arange(len(order))
    constant = bool((array == array.isel(draw=0)).all())
    low, high = (values.min(0), values.max(0)) if constant else quantiles(values)
    name = "range over chains" if constant else f"{100 * INTERVAL:.0f} % interval"
    ax.hlines(
        rows,
        low,
        high,
        color=COLOURS[0],
        linewidth=1.2,
        alpha=0.6,
        label=name,
    )
    chains = array.mean("draw").transpose("chain", ...).to_numpy()[:, order]
    if len(chains) > 1:
        repeated = np.broadcast_to(rows, chains.shape)
        ax.scatter(
            chains.ravel(),
            repeated.ravel(),
            s=3,
            color=COLOURS[1],
            linewidths=0,
            zorder=3,
            label="mean of one chain",
        )
    ax.scatter(
        values.mean(axis=0),
        rows,
        s=16,
        facecolors=[COLOURS[0] if keep else "white" for keep in kept],
        edgecolors=COLOURS[0],
        linewidths=0.9,
        zorder=2.5,
        label="mean (filled: above threshold)",
    )
    ax.grid(axis="y", color="0.92", linewidth=0.5)


def _finish(ax: Axes, var_name: str, threshold: float) -> None:
    """Label and range; the threshold belongs to probabilities."""
    if var_name == "effect":
        ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
        ax.set_xlabel("Effect (norm of gated weights)")
        return
    ax.axvline(threshold, color=GREY, linestyle="--", linewidth=0.8, zorder=0, label="threshold")
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(var_name.replace("_", " ").capitalize())


def _legend(figure: Figure, axes: Any) -> None:
    """What is drawn in either panel, each thing once."""
    entries = [axis.get_legend_handles_labels() for axis in axes]
    known = {name: handle for part in entries[::-1] for handle, name in zip(*part, strict=True)}
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=4)


def _label_rows(ax: Axes, labels: Array, figure: Figure) -> None:
    """One label per row, or every k-th where they would overlap."""
    height = float(figure.get_figheight()) - 0.5
    step = int(np.ceil(len(labels) * 0.11 / max(height, 0.11)))
    ax.set_yticks(np.arange(0, len(labels), step), [str(label) for label in labels[::step]])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
