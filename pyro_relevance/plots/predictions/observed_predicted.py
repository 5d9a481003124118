"""Observed against predicted values, with the predictive interval of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import INTERVAL, quantiles
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)
from pyro_relevance.plots.predictions._rows import Where, rows_of

__all__ = ["observed_predicted"]

_BARS = 400


@styled
def observed_predicted(
    idata: Any,
    *,
    where: Where = "predictions",
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The target of each row against its prediction, in the target's units.

    Dots are means over draws, bars 89 % predictive intervals (of up to 400 rows); rows outside of
    their interval are of another colour. The caption has the RMSE and the share of rows inside.

    Args:
        idata: What `to_arviz` returned.
        where: ``"predictions"`` for new rows, ``"posterior_predictive"`` for those of
            ``observed_data``.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If there are no such rows with known targets, or the targets are classes.
    """
    rows = rows_of(idata, where)
    if rows.are_classes:
        raise ValueError(
            "Expected a target that is a quantity, but got classes. Draw plots.calibration."
        )
    figure, ax = axes_of(ax, inches(width), inches(width) if width == "single" else 3.4, figsize)
    low, high = quantiles(rows.drawn)
    inside = (low <= rows.observed) & (rows.observed <= high)
    for among, colour, label in (
        (inside, COLOURS[0], "inside its interval"),
        (~inside, COLOURS[1], "outside"),
    ):
        x, y = rows.predicted[among], rows.observed[among]
        if len(rows.observed) <= _BARS:
            ax.hlines(y, low[among], high[among], color=colour, alpha=0.35, linewidth=0.7)
        ax.scatter(x, y, s=8, color=colour, linewidths=0, label=label, zorder=3)
    ends = [float(f([rows.observed, rows.predicted])) for f in (np.min, np.max)]
    ax.axline((ends[0], ends[0]), slope=1, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    ax.set_xlabel("Predicted")
    ax.set_ylabel("Observed")
    ax.legend(loc="upper left", handletextpad=0.1)
    rmse = float(np.sqrt(((rows.observed - rows.predicted) ** 2).mean()))
    describe(
        figure,
        f"Observed against predicted values of {rows.what} in the target's units; the dashed line "
        f"is equality. Bars: {100 * INTERVAL:.0f} % predictive intervals, which hold "
        f"{inside.mean():.0%} of the rows. RMSE of the posterior mean: {rmse:.3g}.",
    )
    return figure
