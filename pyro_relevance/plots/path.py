"""What each density along a rule's path costs in fit, with the posterior's uncertainty."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from pyro_relevance.plots._data import Array, pooled, quantiles
from pyro_relevance.plots._style import (
    COLOURS,
    Width,
    describe,
    figure_of,
    inches,
    legend_below,
    styled,
)

__all__ = ["path"]

_TITLES = {"rmse": "RMSE", "accuracy": "Accuracy", "log_likelihood": "Log likelihood"}
_BAND = 0.90
_LOGARITHMIC_FROM = 30.0


@styled
def path(
    dataset: xr.Dataset,
    *,
    chosen: float | None = None,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Accuracy or RMSE, and log likelihood, against the density along a rule's path.

    The line is the mean over chains and draws, the band holds 90 % of them (5 % to 95 %).
    Densities that span a factor of 30 or more have a logarithmic axis. The axis on top gives the
    number of kept parameters, where known. Units are those of the attributes of the data set.

    Args:
        dataset: What :func:`~pyro_relevance.posterior.arviz.convert.rule_path` returned.
        chosen: Density of the mask that was chosen; it is marked.
        width: Columns of a paper; in one column the panels stand below each other.
        figsize: Width and height, inches.

    Returns:
        The figure.

    Raises:
        ValueError: If the dataset is not a rule's path.
    """
    metrics = [name for name in ("accuracy", "rmse") if name in dataset]
    if not metrics or "log_likelihood" not in dataset or "density" not in dataset:
        raise ValueError(
            "Expected a dataset with 'density', 'log_likelihood' and 'accuracy' or 'rmse', but got "
            f"{sorted(map(str, dataset.data_vars))}. Pass what report.rule_path returned."
        )
    rows = 2 if width == "single" else 1
    figure = figure_of(inches(width), 2.6 * rows, figsize)
    names = [metrics[0], "log_likelihood"]
    density = dataset["density"].to_numpy()
    for ax, name in zip(figure.subplots(rows, 2 // rows).flat, names, strict=True):
        _band(ax, density, pooled(dataset[name]))
        units = dataset[name].attrs.get("units")
        ax.set_ylabel(_TITLES[name] + (f" ({units})" if units else ""))
        ax.set_xlabel("Density (fraction of edges kept)")
        if density.min() > 0 and density.max() / density.min() >= _LOGARITHMIC_FROM:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(ScalarFormatter())
        if chosen is not None:
            ax.axvline(chosen, color=COLOURS[1], linestyle="--", linewidth=0.9, label="chosen mask")
        _parameters(ax, dataset)
    handles, labels = figure.get_axes()[0].get_legend_handles_labels()
    legend_below(figure, handles, labels)
    marked = "" if chosen is None else f" The chosen mask keeps {chosen:.3g} of the edges (dashed)."
    describe(
        figure,
        f"{_TITLES[metrics[0]]} and log likelihood of {len(density)} masks of one rule, against "
        "the share of the edges that they keep: mean and 5 % to 95 % of the posterior's draws."
        f"{marked}",
    )
    return figure


def _band(ax: Axes, density: Array, values: Array) -> None:
    """Mean and band of ``(sample, mask)`` values."""
    low, high = quantiles(values, _BAND)
    ax.fill_between(
        density, low, high, color=COLOURS[0], alpha=0.25, linewidth=0, label="5 % to 95 % of draws"
    )
    ax.plot(
        density, values.mean(axis=0), color=COLOURS[0], marker="o", markersize=2.5, label="mean"
    )


def _parameters(ax: Axes, dataset: xr.Dataset) -> None:
    """The number of kept parameters at up to four of the masks, on top."""
    if "num_parameters" not in dataset:
        return
    left = dataset["num_parameters"].to_numpy()
    if not np.all(np.isfinite(left)):
        return
    density = dataset["density"].to_numpy()
    shown = _spread(np.log(density) if ax.get_xscale() == "log" else density)
    top = ax.secondary_xaxis("top")
    top.set_xticks(density[shown], [f"{int(count):,}" for count in left[shown]])
    top.minorticks_off()
    top.set_xlabel("Parameters left")


def _spread(positions: Array) -> Array:
    """Indices of up to five positions that stand apart, from right to left."""
    width = float(np.ptp(positions)) or 1.0
    chosen: list[int] = []
    for index in np.argsort(-positions, kind="stable"):
        if not chosen or positions[chosen[-1]] - positions[index] >= 0.22 * width:
            chosen.append(int(index))
    return np.asarray(chosen)
