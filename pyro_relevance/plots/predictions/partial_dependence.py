"""What is predicted along one input, with the posterior's uncertainty."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import INTERVAL, pooled, quantiles
from pyro_relevance.plots._style import (
    COLOURS,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)

__all__ = ["partial_dependence"]


@styled
def partial_dependence(
    dataset: xr.Dataset,
    *,
    class_index: int = 1,
    name: str | None = None,
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Mean prediction along one input: a line, its 89 % band over draws, and thin lines of chains.

    Ticks below are the values of the data: where there are none, the curve is a guess.

    Args:
        dataset: What ``report.partial_dependence`` returned.
        class_index: The class whose probability is drawn, where there are classes.
        name: Name of the prediction; ``None``: from the data set.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If the data set is another, or has no such class.
    """
    if "y" not in dataset or "value" not in dataset.coords:
        raise ValueError(
            f"Expected a data set with 'y' over 'value', but got {sorted(map(str, dataset))}. Pass "
            "what report.partial_dependence returned."
        )
    y, named = _selected(dataset["y"], class_index, name)
    figure, ax = axes_of(ax, inches(width), 2.3, figsize)
    value, draws = dataset["value"].to_numpy(), pooled(y)
    low, high = quantiles(draws)
    ax.fill_between(value, low, high, color=COLOURS[0], alpha=0.25, linewidth=0,
                    label=f"{100 * INTERVAL:.0f} % of draws")  # fmt: skip
    chains = y.mean("draw").transpose("chain", "value").to_numpy()
    for number, chain in enumerate(chains if len(chains) > 1 else ()):
        ax.plot(value, chain, color=COLOURS[5], linewidth=0.5,
                label="one chain" if number == 0 else None)  # fmt: skip
    ax.plot(value, draws.mean(0), color=COLOURS[0], linewidth=1.4, label="mean")
    if "observed" in dataset:
        seen = dataset["observed"].to_numpy()
        seen = seen[(seen >= value.min()) & (seen <= value.max())]
        ax.plot(seen, np.zeros(len(seen)), "|", color=COLOURS[1], markersize=5, alpha=0.4,
                transform=ax.get_xaxis_transform(), clip_on=False)  # fmt: skip
    feature = str(dataset.attrs.get("feature", "input"))
    ax.set_xlabel(feature)
    ax.set_ylabel(named)
    ax.margins(x=0)
    ax.legend(loc="best")
    describe(
        figure,
        f"Partial dependence on {feature}: {named} when the input has the "
        f"same value in all rows. Band: {100 * INTERVAL:.0f} % of the draws of all chains; thin "
        "lines: single chains; ticks below: the data.",
    )
    return figure


def _selected(y: xr.DataArray, class_index: int, name: str | None) -> tuple[xr.DataArray, str]:
    """What is drawn, and its name."""
    if "class" not in y.dims:
        return y, name or "Mean prediction"
    if not 0 <= class_index < y.sizes["class"]:
        raise ValueError(
            f"Expected class_index from 0 to {y.sizes['class'] - 1}, but got {class_index}."
        )
    return y.isel({"class": class_index}), name or f"Probability of class {class_index}"
