"""Size or time against error of compared methods, with error bars and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from pyro_relevance.plots._labels import place_labels
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    describe,
    figure_of,
    inches,
    legend_below,
    styled,
)

__all__ = ["front", "pareto"]

_MARKERS = "osD^vP*X<>ph"
_LABELS = {
    "num_parameters": "Parameters",
    "num_macs": "Multiply-accumulates",
    "num_bytes": "Bytes",
    "num_weights": "Weights",
    "compression": "Compression (times smaller)",
    "minutes": "Minutes, design and training",
    "seconds": "Seconds",
    "test_error": "Test error (%)",
    "rmse": "Test RMSE",
}
_LINE = 0.15
"""Height of a line of the legend, in inches."""


@styled
def pareto(
    record: Mapping[str, Any],
    *,
    x: tuple[str, ...] = ("num_parameters", "minutes"),
    y: str | None = None,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Error of all methods against what they cost; lower left is better.

    Bars are standard errors over seeds. The grey line joins the methods that no other one beats in
    both, by their means; these are named beside their points, all others in the legend.

    Args:
        record: A record with one row for each method: what ``comparison_record`` returned, or its
            file read as JSON.
        x: Metrics of the horizontal axes, one panel for each.
        y: Metric of the vertical axis; by default the test error or the RMSE.
        width: Columns of a paper; in one column the panels stand below each other.
        figsize: Width and height, inches.

    Returns:
        The figure.

    Raises:
        ValueError: If no row has the metrics.
    """
    rows = record["rows"]
    known = {name for row in rows for name in row["metrics"]}
    if y is None:
        y = next((name for name in ("test_error", "rmse") if name in known), "test_error")
    missing = [name for name in (*x, y) if name not in known]
    if missing or not x:
        raise ValueError(
            f"Expected a record with the metrics {[*x, y]}, but got {sorted(known)}. Pass what "
            "comparison_record returned."
        )
    single = width == "single"
    shape = (len(x), 1) if single else (1, len(x))
    own = 3.2 + 2.4 * (len(x) - 1) + 0.8 if single else max(3.2, 0.2 + _LINE * len(rows))
    figure = figure_of(inches(width), own, figsize)
    handles: dict[str, Line2D] = {}
    panels = figure.subplots(*shape, squeeze=False, sharey=True).ravel().tolist()
    best: dict[str, dict[str, tuple[float, float]]] = {}
    for ax, name in zip(panels, x, strict=True):
        drawn, best[name] = _draw_panel(ax, rows, name, y)
        handles.update(drawn)
        if single or ax is panels[0]:
            ax.set_ylabel(_LABELS.get(y, y))
    if single:
        legend_below(figure, list(handles.values()), list(handles))
    else:
        figure.legend(
            list(handles.values()), list(handles), loc="outside right upper", handletextpad=0.2
        )
    for ax, named in zip(panels, best.values(), strict=True):
        place_labels(ax, np.array(list(named.values())), list(named))
    describe(figure, _caption(y, len(handles), best))
    return figure


def _caption(y: str, number: int, best: Mapping[str, Mapping[str, Any]]) -> str:
    fronts = "; ".join(
        f"by {_LABELS.get(name, name).lower()}: {', '.join(named)}" for name, named in best.items()
    )
    return (
        f"{_LABELS.get(y, y)} of {number} methods against what they cost, means and standard "
        f"errors over seeds; lower left is better. Not beaten in both (grey line) {fronts}."
    )


def _draw_panel(
    ax: Axes, rows: Sequence[Mapping[str, Any]], x: str, y: str
) -> tuple[dict[str, Line2D], dict[str, tuple[float, float]]]:
    """Draw the methods that have both metrics; return handles, and the points of the front."""
    handles: dict[str, Line2D] = {}
    points = []
    for number, row in enumerate(rows):
        if x not in row["metrics"] or y not in row["metrics"]:
            continue
        across, up = row["metrics"][x], row["metrics"][y]
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": _MARKERS[number % len(_MARKERS)],
        }
        ax.errorbar(
            across["mean"],
            up["mean"],
            xerr=across["se"],
            yerr=up["se"],
            markersize=4,
            linestyle="none",
            elinewidth=0.8,
            **style,
        )
        handles[row["method"]] = Line2D([], [], linestyle="none", markersize=4, **style)
        points.append((across["mean"], up["mean"]))
    best = front(points)
    ax.plot(*zip(*best, strict=True), color=GREY, linewidth=0.8, zorder=0)
    if _is_wide([point[0] for point in points]):
        ax.set_xscale("log")
        _label(ax.xaxis)
    if _is_wide([point[1] for point in points]):
        ax.set_yscale("log")
        _label(ax.yaxis)
    ax.set_xlabel(_LABELS.get(x, x))
    named = dict(zip(handles, points, strict=True))
    return handles, {name: point for name, point in named.items() if point in best}


def _is_wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 10


def _label(axis: Axis) -> None:
    """Write numbers at a logarithmic axis instead of powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both coordinates, from left to right.

    Args:
        points: Pairs of which smaller is better.

    Example:
        >>> front([(1.0, 5.0), (2.0, 6.0), (3.0, 2.0), (4.0, 2.0)])
        [(1.0, 5.0), (3.0, 2.0)]
    """
    chosen: list[tuple[float, float]] = []
    lowest = np.inf
    for point in sorted(points):
        if point[1] < lowest:
            chosen.append(point)
            lowest = point[1]
    return chosen
