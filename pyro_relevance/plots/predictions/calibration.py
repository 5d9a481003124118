"""Are the predictive distributions right? PIT histogram for quantities, reliability for classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import INTERVAL, Array
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)
from pyro_relevance.plots.predictions._rows import Rows, Where, rows_of

__all__ = ["calibration"]

_ROWS_OF_A_BIN = 8
_MOST_BINS = 10


@styled
def calibration(
    idata: Any,
    *,
    where: Where = "predictions",
    num_bins: int | None = None,
    class_names: Sequence[str] | None = None,
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """PIT histogram of a quantity, or reliability diagram of classes.

    The probability integral transform (PIT) of a row is the share of its predictive draws below
    what was observed; of a calibrated model it is uniform, and 89 % of the bars end in the band. A
    U says that the predictions are too sure, a hump that they are too wide. The reliability diagram
    has bins with the same number of rows: the share of the class among them against its mean
    predicted probability, with 89 % (Wilson) intervals. For two classes it is of the second one, or
    else of the most probable class of each row.

    Args:
        idata: What `to_arviz` returned.
        where: ``"predictions"`` for new rows, ``"posterior_predictive"`` for those of
            ``observed_data``.
        num_bins: Number of bins; ``None``: up to 10, with 8 rows or more.
        class_names: Names of the classes, in order.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If there are no such rows with known targets, or ``num_bins`` is not positive.

    References:
        Gneiting, Balabdaoui and Raftery, Probabilistic forecasts, calibration and sharpness, JRSS B
        2007.
    """
    rows = rows_of(idata, where)
    if num_bins is None:
        num_bins = int(np.clip(len(rows.observed) // _ROWS_OF_A_BIN, 2, _MOST_BINS))
    if num_bins < 1:
        raise ValueError(f"Expected num_bins >= 1, but got {num_bins}. Pass 10, say.")
    figure, ax = axes_of(ax, inches(width), 2.6, figsize)
    if class_names is not None:
        rows = replace(rows, names=tuple(map(str, class_names)))
    text = (_reliability if rows.are_classes else _transform)(ax, rows, num_bins)
    describe(figure, text)
    return figure


def _transform(ax: Axes, rows: Rows, num_bins: int) -> str:
    """The PIT histogram; returns its caption."""
    from scipy import stats

    below = (rows.drawn < rows.observed).mean(0) + 0.5 * (rows.drawn == rows.observed).mean(0)
    counts, edges = np.histogram(below, bins=num_bins, range=(0.0, 1.0))
    number = len(below)
    low, high = stats.binom.interval(INTERVAL, number, 1.0 / num_bins)
    ax.axhspan(low, high, color="0.88", zorder=0, linewidth=0, label="89 % if calibrated")
    ax.axhline(number / num_bins, color=GREY, linestyle="--", linewidth=0.8, zorder=1)
    ax.bar(edges[:-1], counts, 1.0 / num_bins, align="edge", color=COLOURS[0], alpha=0.75,
           edgecolor="white", linewidth=0.6, zorder=2)  # fmt: skip
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.3 * max(float(counts.max()), float(high)))
    ax.set_xlabel("Probability integral transform")
    ax.set_ylabel("Rows")
    ax.legend(loc="upper right")
    outside = int(((counts < low) | (counts > high)).sum())
    return (
        f"PIT histogram of {rows.what} in {num_bins} bins: {outside} of them end outside of the "
        f"band that holds each with {INTERVAL:.0%} probability if the predictions are calibrated. "
        "A U means too sure, a hump too wide, a slope biased."
    )


def _reliability(ax: Axes, rows: Rows, num_bins: int) -> str:
    """The reliability diagram; returns its caption."""
    p, right, what = _of_class(rows)
    bins = np.array_split(np.argsort(p, kind="stable"), num_bins)
    mean = np.array([p[rows_of_bin].mean() for rows_of_bin in bins])
    share = np.array([right[rows_of_bin].mean() for rows_of_bin in bins])
    counts = np.array([len(rows_of_bin) for rows_of_bin in bins])
    low, high = _wilson(share, counts)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, zorder=0, label="calibrated")
    ax.vlines(mean, low, high, color=COLOURS[0], alpha=0.6, linewidth=1.2, label="89 % interval")
    ax.plot(mean, share, color=COLOURS[0], marker="o", markersize=3.5, linewidth=0.8)
    # Where the predictions lie, as ticks below.
    ax.plot(p, np.full(len(p), -0.04), "|", color=COLOURS[1], markersize=4, alpha=0.4,
            label="rows", clip_on=False)  # fmt: skip
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.08, 1.03)
    ax.set_xlabel(f"Predicted probability of {what}")
    ax.set_ylabel("Observed share")
    ax.legend(loc="upper left")
    error = float((counts * np.abs(mean - share)).sum() / counts.sum())
    return (
        f"Reliability of the predicted probability of {what} on {rows.what}, in {num_bins} bins "
        f"with the same number of rows; bars: {INTERVAL:.0%} intervals of the observed share; "
        f"ticks below: the rows. Mean distance from the diagonal (ECE): {error:.3f}."
    )


def _of_class(rows: Rows) -> tuple[Array, Array, str]:
    """Probability, whether it came true, and of what."""
    probability = rows.predicted
    if probability.shape[1] == 2:
        named = f"class {rows.names[1]}" if len(rows.names) == 2 else "class 1"
        return probability[:, 1], rows.observed == 1, named
    best = probability.argmax(1)
    return probability.max(1), rows.observed == best, "the most probable class"


def _wilson(share: Array, counts: Array) -> tuple[Array, Array]:
    """Wilson's interval of a share."""
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + INTERVAL / 2.0))
    middle = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
    half = z * np.sqrt(share * (1 - share) / counts + (z / (2 * counts)) ** 2) / (1 + z**2 / counts)
    return middle - half, middle + half
