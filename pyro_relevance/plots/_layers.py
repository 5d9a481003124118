"""Any network as a list of its weights: how sure their connections are, and how many stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array
from pyro_relevance.plots._graph import probabilities
from pyro_relevance.plots._matrix import COLOURMAP
from pyro_relevance.plots._style import GREY

__all__ = ["MOST_LAYERS", "Weights", "draw_layers", "weights_of"]

MOST_LAYERS = 55
"""Rows of the figure: more layers are joined by the first parts of their names."""
_BINS = 20


@dataclass(frozen=True, slots=True)
class Weights:
    """The connections of one weight, or of several that are shown together.

    Attributes:
        name: Name of the weight.
        shape: Its shape in words.
        shares: ``(num_bins,)`` share of the connections by inclusion probability, low to high.
        kept: Connections that are kept.
        total: Connections.
    """

    name: str
    shape: str
    shares: Array
    kept: int
    total: int


def weights_of(
    dataset: xr.Dataset, mask: Mapping[str, Any] | None, threshold: float
) -> list[Weights]:
    """Return the weights of a network, joined where there are more than `MOST_LAYERS`.

    Args:
        dataset: The group ``relevance``, one chain.
        mask: Kept edges by group; groups that it lacks are kept.
        threshold: Probability, used where ``mask`` is ``None``.
    """
    found = []
    for name, shape, probability, kept in probabilities(dataset, mask, threshold):
        counts, _ = np.histogram(probability, _BINS, (0.0, 1.0))
        repeated = int(np.prod(shape)) // probability.size
        found.append(
            Weights(
                name,
                "×".join(map(str, shape)),
                counts / probability.size,
                round(float(kept.mean()) * probability.size) * repeated,
                int(np.prod(shape)),
            )
        )
    if not found:
        raise ValueError(
            "Expected a network with weights of two dimensions or more, but got none. Draw its "
            "edges group by group with plots.relevance."
        )
    depth = max(weights.name.count(".") for weights in found)
    while len(found) > MOST_LAYERS and depth > 0:
        found, depth = _joined(found, depth), depth - 1
    return found


def _joined(weights: Sequence[Weights], depth: int) -> list[Weights]:
    together: dict[str, list[Weights]] = {}
    for one in weights:
        together.setdefault(".".join(one.name.split(".")[:depth]), []).append(one)
    return [
        Weights(
            name,
            f"{len(parts)} weights" if len(parts) > 1 else parts[0].shape,
            np.average([part.shares for part in parts], axis=0, weights=[p.total for p in parts]),
            sum(part.kept for part in parts),
            sum(part.total for part in parts),
        )
        for name, parts in together.items()
    ]


def draw_layers(ax: Axes, figure: Figure, weights: Sequence[Weights]) -> None:
    """Draw one row for each weight: a bar of its connections by probability, and what is kept.

    Args:
        ax: The axes.
        figure: Their figure.
        weights: From the inputs to the outputs.
    """
    colours = colormaps[COLOURMAP]((np.arange(_BINS) + 0.5) / _BINS)
    rows = np.arange(len(weights))
    # The surest connections stand on the left, where those that are kept are counted from.
    left = np.zeros(len(weights))
    for number in reversed(range(_BINS)):
        share = np.array([one.shares[number] for one in weights])
        ax.barh(rows, share, 0.62, left=left, color=colours[number], linewidth=0, zorder=2)
        left += share
    kept = np.array([one.kept / one.total for one in weights])
    ax.vlines(kept, rows - 0.45, rows + 0.45, color="black", linewidth=1.4, zorder=3, label="kept")
    for row, one in zip(rows, weights, strict=True):
        ax.annotate(
            f"{one.kept:,} of {one.total:,}",
            (1.0, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
        )
    ax.set_yticks(rows, [f"{one.name}  {one.shape}" for one in weights])
    ax.tick_params(axis="y", length=0, labelsize=6 if len(weights) > 25 else 7)
    ax.set_ylim(len(weights) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("Share of the connections, the surest ones first; black: share that is kept")
    ax.spines["left"].set_color(GREY)
    scale = ScalarMappable(norm=Normalize(0, 1), cmap=colormaps[COLOURMAP])
    bar = figure.colorbar(scale, ax=ax, shrink=0.8, aspect=25, pad=0.16)
    bar.set_label("Inclusion probability")
    bar.outline.set_linewidth(0.5)
