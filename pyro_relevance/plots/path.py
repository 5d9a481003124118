"""What each density along a rule's path costs in fit, with the posterior's uncertainty."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from pyro_relevance.plots._data import Array, pooled, quantiles
from pyro_relevance.plots._style import COLOURS, DOUBLE_COLUMN, figure_of, styled

__all__ = ["path"]

_TITLES = {"rmse": "RMSE", "accuracy": "Accuracy", "log_likelihood": "Log likelihood"}
_BAND = 0.90
_LOGARITHMIC_FROM = 30.0


@styled
def path(dataset: xr.Dataset, *, figsize: tuple[float, float] | None = None) -> Figure:
    """Accuracy or RMSE, and log likelihood, against the density along a rule's path.

    The line is the mean over chains and draws, the band holds 90 % of them (5 % to 95 %).
    Densities that span a factor of 30 or more have a logarithmic axis. The axis on top gives the
    number of kept parameters, where known.

    Args:
        dataset: What :func:`~pyro_relevance.posterior.arviz.convert.rule_path` returned.
        figsize: Width and height, inches; ``None`` for the width of both columns.

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
    figure = figure_of(DOUBLE_COLUMN, 2.6, figsize)
    names = [metrics[0], "log_likelihood"]
    density = dataset["density"].to_numpy()
    for ax, name in zip(figure.subplots(1, 2), names, strict=True):
        _band(ax, density, pooled(dataset[name]))
        units = dataset[name].attrs.get("units")
        ax.set_ylabel(_TITLES[name] + (f" ({units})" if units else ""))
        ax.set_xlabel("Density (fraction of edges kept)")
        if density.min() > 0 and density.max() / density.min() >= _LOGARITHMIC_FROM:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(ScalarFormatter())
        _parameters(ax, dataset)
    handles, labels = figure.get_axes()[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
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
