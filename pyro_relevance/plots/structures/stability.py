"""Does every fit find the same edges? Inclusion probabilities, edges by fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, group_named, select
from pyro_relevance.plots._matrix import COLOURMAP
from pyro_relevance.plots._style import (
    COLOURS,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)

__all__ = ["stability"]


@styled
def stability(
    idata: Any,
    *,
    group: str = "inputs",
    names: Sequence[str] | None = None,
    threshold: float = 0.5,
    max_rows: int = 50,
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Inclusion probability of each edge in each fit: chains of one run, or runs of several seeds.

    On the right is the number of fits that keep the edge. Edges that some fits keep and others do
    not have no verdict of their own.

    Args:
        idata: What `to_arviz` returned, or a sequence of such objects of the same edges.
        group: Name of a group of inputs; other edges of different fits are not the same ones.
        names: Names of the fits; ``None``: their numbers.
        threshold: Inclusion probability above which a fit keeps an edge.
        max_rows: Edges that are shown, those with the largest mean.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If the group is not of inputs, edges differ between the objects, or ``names``
            have another length.
    """
    objects = list(idata) if isinstance(idata, list | tuple) else [idata]
    parts = [_read(each, group) for each in objects]
    labels = parts[0][1]
    if any(found != labels for _, found in parts):
        raise ValueError(
            f"Expected the same edges of {group!r} in each object, but they differ. Pass fits of "
            "one network."
        )
    values = np.concatenate([found for found, _ in parts])
    if names is not None and len(names) != len(values):
        raise ValueError(f"Expected {len(values)} names, one a fit, but got {len(names)}.")
    order = np.lexsort((np.arange(len(labels)), -np.round(100 * values.mean(0))))[:max_rows]
    figure, ax = axes_of(ax, inches(width), max(1.2, 0.85 + 0.145 * len(order)), figsize)
    fits = [str(i) for i in range(len(values))] if names is None else list(map(str, names))
    _draw(ax, figure, values[:, order], [labels[i] for i in order], fits, threshold)
    kept = (values > threshold).sum(0)
    agreed = int(((kept == 0) | (kept == len(values))).sum())
    describe(
        figure,
        f"Inclusion probability of {len(order)} of {len(labels)} edges of {group} in {len(values)} "
        f"fits; on the right the fits that keep the edge (above {threshold:g}). All fits agree on "
        f"{agreed} of {len(labels)} edges.",
    )
    return figure


def _read(idata: Any, group: str) -> tuple[Array, list[str]]:
    """``(fit, edge)`` probabilities, and the labels of the edges."""
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    name = f"{described['variable']}_inclusion_probability"
    if described["granularity"] != "input" or name not in dataset:
        raise ValueError(
            f"Expected a group of inputs with gates, but {group!r} is of "
            f"{described['granularity']}s: those of different fits are not the same ones."
        )
    labels = [str(label) for label in dataset[f"{described['variable']}_edge"].to_numpy()]
    return dataset[name].mean("draw").transpose("chain", ...).to_numpy(), labels


def _draw(
    ax: Axes,
    figure: Figure,
    values: Array,
    labels: Sequence[str],
    fits: Sequence[str],
    threshold: float,
) -> None:
    image = ax.imshow(values.T, cmap=COLOURMAP, vmin=0, vmax=1, aspect="auto",
                      interpolation="nearest")  # fmt: skip
    ax.set_yticks(range(len(labels)), labels, fontsize=7 if len(labels) <= 30 else 5)
    step = -(-len(fits) // 20)
    ax.set_xticks(range(0, len(fits), step), fits[::step])
    ax.set_xlabel("Fit")
    ax.tick_params(length=0)
    kept = (values > threshold).sum(0)
    for row, count in enumerate(kept):
        ax.annotate(
            f"{count}/{len(fits)}",
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
            color="black" if count in (0, len(fits)) else COLOURS[1],
        )
    bar = figure.colorbar(image, ax=ax, shrink=0.8, aspect=25, pad=0.14)
    bar.set_label("Inclusion probability")
    bar.outline.set_linewidth(0.5)
