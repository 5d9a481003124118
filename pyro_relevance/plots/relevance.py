"""How relevant the edges of one group are, as a forest: inclusion probability and effect.

The threshold 1/2 is that of the median probability model (Barbieri and Berger, Optimal predictive
model selection, Annals of Statistics 2004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import INTERVAL, Array, group_named, pooled, quantiles, select
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    describe,
    figure_of,
    inches,
    legend_below,
    root_figure,
    styled,
)

__all__ = ["relevance"]

_ROW = 0.16
_SAME = 100
"""Probabilities that are equal after two digits are a tie."""


@styled
def relevance(
    idata: Any,
    *,
    group: str = "inputs",
    var_name: str = "inclusion_probability",
    coords: Mapping[str, Any] | None = None,
    sort: bool = True,
    threshold: float = 0.5,
    page: int | None = None,
    max_rows: int = 50,
    width: Width | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A forest plot of one edge group, one row per edge.

    The dot is the mean over chains and draws, filled above ``threshold``; the bar is the 89 %
    interval over them, or the range over chains where no draw differs; small dots are means of
    single chains. The panel beside it shows the effect. More than ``max_rows`` inputs have pages;
    more units or weights are a curve over their rank.

    Args:
        idata: What `to_arviz` returned.
        group: Name of the edge group, such as ``"inputs"`` or ``"0.units"``.
        var_name: ``"inclusion_probability"``, ``"gate"``, or ``"effect"``, which is shown alone.
        coords: Labels to show, e.g. ``{"chain": 0}``, which groups other than inputs need.
        sort: Most relevant edge at the top (equal to two digits: as in the network).
        threshold: Where the line is drawn.
        page: The page, from 1; ``None``: the first one of inputs, a curve of units and weights.
        max_rows: Rows of a page.
        width: Columns of a paper; ``None``: both where there are two panels.
        figsize: Width and height, inches; ``None`` for a height by the rows.
        ax: Draw the first panel alone into these axes; their figure is returned.

    Raises:
        ValueError: If a name or a page does not exist, or units of several chains would be pooled.
    """
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    stem, hidden = described["variable"], described["granularity"] != "input"
    first = _variable(dataset, f"{stem}_{var_name}", coords)
    _check_chains(hidden, first.sizes["chain"], group)
    shown = [first]
    if ax is None and var_name != "effect" and f"{stem}_effect" in dataset:
        shown.append(_variable(dataset, f"{stem}_effect", coords))
    mean = pooled(first).mean(axis=0)
    order = _order(mean, sort)
    curve = page is None and hidden and len(order) > max_rows
    rows = order if curve else _paged(order, page, max_rows)
    figure, axes = _panels(len(rows), len(shown), curve, (width, figsize, ax))
    _draw(axes, shown, (var_name, rows, mean[rows] > threshold), threshold, curve=curve)
    if ax is None:
        _legend(figure, axes)
    if curve:
        figure.supxlabel(f"Rank among the {len(rows):,} edges of {group}", fontsize=8)
    else:
        _label_rows(axes[0], first[f"{stem}_edge"].to_numpy()[rows], len(order))
    describe(figure, _caption(group, var_name, mean, threshold, (len(rows), len(shown), curve)))
    return figure


def _draw(
    axes: Sequence[Axes],
    shown: Sequence[xr.DataArray],
    what: tuple[str, Array, Array],
    threshold: float,
    *,
    curve: bool,
) -> None:
    """Each quantity in its panel; of an effect alone, every dot is filled."""
    name, rows, kept = what
    kept = np.ones(len(rows), dtype=bool) if name == "effect" else kept
    for panel, array, own in zip(axes, shown, (name, "effect"), strict=False):
        (_curve if curve else _rows)(panel, array, rows, kept)
        _finish(panel, own, threshold, upright=curve)


def _check_chains(hidden: bool, num_chains: int, group: str) -> None:
    if hidden and num_chains > 1:
        raise ValueError(
            f"Expected one chain for group {group!r}, but got {num_chains}: units and weights of "
            "different chains are not the same ones. Pass coords={'chain': 0}, say."
        )


def _order(mean: Array, sort: bool) -> Array:
    """Numbers of the edges, the most relevant first; noise decides no tie."""
    if not sort:
        return np.arange(len(mean))
    return np.lexsort((np.arange(len(mean)), -np.round(_SAME * mean)))


def _paged(order: Array, page: int | None, max_rows: int) -> Array:
    page = 1 if page is None else page
    pages = max(1, -(-len(order) // max_rows)) if max_rows > 0 else 0
    if not 1 <= page <= pages:
        raise ValueError(
            f"Expected page from 1 to {pages} of {max_rows} rows each, but got {page}. The group "
            f"has {len(order)} edges."
        )
    return order[(page - 1) * max_rows : page * max_rows]


def _panels(
    num_rows: int,
    number: int,
    curve: bool,
    layout: tuple[Width | None, tuple[float, float] | None, Axes | None],
) -> tuple[Figure, list[Axes]]:
    """Return the figure and its one or two panels."""
    width, figsize, ax = layout
    if ax is not None:
        return root_figure(ax), [ax]
    wide = inches(width or ("double" if number > 1 else "single"))
    figure = figure_of(wide, 2.4 if curve else max(0.95 + _ROW * num_rows, 1.4), figsize)
    axes = figure.subplots(1, number, sharey=not curve, squeeze=False)[0]
    return figure, axes.tolist()


def _caption(
    group: str, name: str, mean: Array, threshold: float, shown: tuple[int, int, bool]
) -> str:
    rows, panels, curve = shown
    number, with_effect = len(mean), panels > 1
    name = "gates" if name == "gate" else name.replace("_", " ")
    text = f"{name.capitalize()}{' and effect' if with_effect else ''} of the edges of {group}"
    if curve:
        text += f": all {number:,}, by rank; band: {100 * INTERVAL:.0f} % interval over draws."
    else:
        text += f": {rows} of {number}" if rows < number else ""
        text += (
            ", the most relevant ones on top. Dots: means over draws and chains; bars: "
            f"{100 * INTERVAL:.0f} % intervals, or ranges over chains; small dots: single chains."
        )
    if name != "effect":
        above = int((mean > threshold).sum())
        text += f" {above} of {number} lie above {threshold:g} (dashed)."
    return text


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


def _curve(ax: Axes, array: xr.DataArray, order: Array, kept: Array) -> None:
    """Means by rank, with the band of the draws: each of the two sorted by the first panel."""
    values = pooled(array)[:, order]
    rank = np.arange(1, len(order) + 1)
    low, high = quantiles(values)
    ax.fill_between(rank, low, high, color=COLOURS[0], alpha=0.25, linewidth=0,
                    label=f"{100 * INTERVAL:.0f} % interval")  # fmt: skip
    for among, face in ((kept, COLOURS[0]), (~kept, "white")):
        ax.scatter(rank[among], values.mean(0)[among], s=5, facecolors=face, edgecolors=COLOURS[0],
                   linewidths=0.5, zorder=3,
                   label="mean (filled: above threshold)" if face != "white" else None)  # fmt: skip


def _finish(ax: Axes, var_name: str, threshold: float, *, upright: bool) -> None:
    """Label and range; the threshold belongs to probabilities."""
    name = "Effect (norm of gated weights)"
    if var_name != "effect":
        line = ax.axhline if upright else ax.axvline
        line(threshold, color=GREY, linestyle="--", linewidth=0.8, zorder=0, label="threshold")
        name = var_name.replace("_", " ").capitalize()
        (ax.set_ylim if upright else ax.set_xlim)(-0.02, 1.02)
    elif upright:
        ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])
    else:
        ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
    (ax.set_ylabel if upright else ax.set_xlabel)(name)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """What is drawn in either panel, each thing once."""
    entries = [axis.get_legend_handles_labels() for axis in axes]
    known = {name: handle for part in entries[::-1] for handle, name in zip(*part, strict=True)}
    legend_below(figure, list(known.values()), list(known))


def _label_rows(ax: Axes, labels: Array, total: int) -> None:
    """One label per row; on top how many rows there are elsewhere."""
    size = 7.0
    height = float(root_figure(ax).get_figheight()) - 0.5
    if len(labels) * 0.11 > height:  # given by the caller: smaller letters
        size = max(3.0, 7.0 * height / (0.11 * len(labels)))
    ax.set_yticks(np.arange(len(labels)), [str(label) for label in labels], fontsize=size)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if len(labels) < total:
        ax.set_title(f"{len(labels)} of {total} edges", fontsize=7, color=COLOURS[1], loc="left")
