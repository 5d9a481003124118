"""Effect against inclusion probability: what is strong, what is probable, and where a rule cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pyro_relevance.plots._data import (
    INTERVAL,
    Array,
    group_named,
    one_chain,
    pooled,
    quantiles,
    select,
)
from pyro_relevance.plots._labels import place_labels
from pyro_relevance.plots._style import (
    COLOURS,
    GREY,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)

__all__ = ["effect_inclusion"]

_MOST_NAMES = 25
_EDGE = 1e-4
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_BARS = 60


@styled
def effect_inclusion(
    idata: Any,
    *,
    group: str = "inputs",
    chain: int | None = None,
    threshold: float = 0.5,
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Each edge of a group at its effect and its inclusion probability, as in a volcano plot.

    The vertical axis has the scale of log-odds, so that 0.99 and 0.999 stand apart; probabilities
    beyond 0.0001 and 0.9999 lie at its ends. Bars are the 89 % interval of the effect and the range
    of the probability over chains. The dashed line is the rule's border; edges above it are filled.

    Args:
        idata: What `to_arviz` returned.
        group: Name of the edge group.
        chain: One chain; ``None``: all, for groups of inputs alone.
        threshold: Inclusion probability above which the rule keeps an edge.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If the group does not exist, has no gates, or units of several chains would be
            pooled.
    """
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    stem = described["variable"]
    if f"{stem}_inclusion_probability" not in dataset or f"{stem}_effect" not in dataset:
        raise ValueError(
            f"Expected gates and effects of group {group!r}, but got "
            f"{sorted(map(str, dataset.data_vars))}. Fit a model with gates."
        )
    dataset = dataset if chain is None else one_chain(dataset, chain)
    if described["granularity"] != "input" and dataset.sizes["chain"] > 1:
        raise ValueError(
            f"Expected one chain for group {group!r}, but got {dataset.sizes['chain']}: units and "
            "weights of different chains are not the same ones. Pass chain=0, say."
        )
    probability = dataset[f"{stem}_inclusion_probability"].mean("draw").transpose("chain", ...)
    effect = pooled(dataset[f"{stem}_effect"])
    names = [str(name) for name in dataset[f"{stem}_edge"].to_numpy()]
    figure, ax = axes_of(ax, inches(width), 2.6, figsize)
    _draw(ax, effect, probability.to_numpy(), threshold)
    mean = probability.to_numpy().mean(0)
    left_out = _name(ax, effect.mean(0), mean, names)
    _describe(figure, group, mean, threshold, left_out)
    return figure


def _draw(ax: Axes, effect: Array, chains: Array, threshold: float) -> None:
    """Bars and dots; ``effect`` is ``(draw, edge)``, ``chains`` ``(chain, edge)``."""
    x, y = effect.mean(0), _logit(chains.mean(0))
    if len(x) <= _BARS:
        low, high = quantiles(effect)
        ax.hlines(y, low, high, color=COLOURS[0], alpha=0.35, linewidth=0.9, label="effect")
        ends = _logit(chains.min(0)), _logit(chains.max(0))
        ax.vlines(x, *ends, color=COLOURS[1], alpha=0.5, linewidth=0.9, label="range over chains")
    keep = chains.mean(0) > threshold
    for kept, face in ((True, COLOURS[0]), (False, "white")):
        ax.scatter(
            x[keep == kept],
            y[keep == kept],
            s=14 if len(x) <= _BARS else 6,
            facecolors=face,
            edgecolors=COLOURS[0],
            linewidths=0.7,
            zorder=3,
            label="kept" if kept else "not kept",
        )
    ax.axhline(float(_logit(threshold)), color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    top, border = max(5.0, 1.15 * float(y.max())), float(_logit(threshold))
    ax.set_ylim(min(-1.0, 1.15 * float(y.min()), border - 1.0), max(top, border + 1.0))
    ax.yaxis.set_major_locator(FixedLocator([float(_logit(p)) for p in _TICKS]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1 / (1 + np.exp(-value)):.3g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(left=-0.03 * float(effect.max() or 1.0))
    ax.set_xlabel("Effect (norm of gated weights)")
    ax.set_ylabel("Inclusion probability")


def _logit(probability: Any) -> Array:
    p = np.clip(np.asarray(probability, dtype=float), _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(p / (1.0 - p)))


def _name(ax: Axes, x: Array, probability: Array, names: list[str]) -> list[str]:
    """Name the strongest edges, the others only where there are few."""
    order = np.lexsort((np.arange(len(x)), -x, -probability))[:_MOST_NAMES]
    points = np.stack([x, _logit(probability)], 1)
    shown = [*order, *np.setdiff1d(np.arange(len(x)), order)]
    words = [names[i] if n < _MOST_NAMES else "" for n, i in enumerate(shown)]
    missed = place_labels(ax, points[shown], words)
    return missed + [names[i] for i in shown[_MOST_NAMES:]]


def _describe(
    figure: Figure, group: str, mean: Array, threshold: float, left_out: list[str]
) -> None:
    text = (
        f"Effect against inclusion probability (log-odds scale) of the {len(mean)} edges of "
        f"{group}: {int((mean > threshold).sum())} lie above the rule's border of {threshold:g} "
        "(dashed) and are filled."
    )
    if len(mean) <= _BARS:
        text += (
            f" Horizontal bars: {100 * INTERVAL:.0f} % interval of the effect over draws and "
            "chains; vertical bars: lowest to highest chain."
        )
    if left_out:
        text += f" {len(left_out)} of them are not named."
    describe(figure, text)
