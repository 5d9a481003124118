"""A chain of linear layers as matrices: where lines of a graph would hide each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pyro_relevance.plots._data import Array
from pyro_relevance.plots._graph import Graph, Layer
from pyro_relevance.plots._style import legend_below

__all__ = ["COLOURMAP", "draw_matrices", "faded"]

# reversed: what is included is dark, what is not fades into the paper
COLOURMAP = "viridis_r"
_FADE = 0.72
_MOST_NAMES = 60


def faded(colours: Array) -> Array:
    """Return colours of pruned connections: nearly that of the paper."""
    return np.asarray(colours) * (1 - _FADE) + _FADE


def draw_matrices(
    figure: Figure,
    graph: Graph,
    labels: Sequence[str],
    pruned: str,
    weights: Sequence[Array] = (),
) -> None:
    """Draw one matrix for each layer, side by side, units from top to bottom.

    Args:
        figure: An empty figure.
        graph: The network.
        labels: Names of the input columns, or none.
        pruned: What is faint, in words.
        weights: ``(out, in)`` weights of each layer, whose sign and size are drawn in the place of
            probabilities.
    """
    most = max((float(np.abs(weight).max()) for weight in weights), default=0.0) or 1.0
    scale = ScalarMappable(
        norm=Normalize(-most, most) if weights else Normalize(0, 1),
        cmap=colormaps["RdBu_r" if weights else COLOURMAP],
    )
    values = list(weights) or [layer.probability for layer in graph.layers]
    last = len(graph.layers) - 1
    names = ["inputs", *(f"hidden {i + 1}" for i in range(last)), "outputs"]
    # The last layer is turned where it has few outputs, so that its units are rows, too.
    turned = [i == last > 0 and len(layer.kept) < len(layer.kept[0]) / 3
              for i, layer in enumerate(graph.layers)]  # fmt: skip
    shapes = [layer.kept.shape[::-1] if t else layer.kept.shape
              for layer, t in zip(graph.layers, turned, strict=True)]  # fmt: skip
    widest = max(shape[1] for shape in shapes)
    ratios = [max(shape[1], 0.12 * widest) for shape in shapes]
    axes = figure.subplots(1, len(shapes), width_ratios=ratios, squeeze=False)[0]
    for i, (ax, layer, turn) in enumerate(zip(axes, graph.layers, turned, strict=True)):
        _draw(ax, layer, turn, scale.to_rgba(values[i])[..., :3])
        across, down = (i + 1, i) if turn else (i, i + 1)
        ax.set_xlabel(_counted(names[across], graph.alive[across]))
        ax.set_ylabel(_counted(names[down], graph.alive[down]))
        ax.set_title(f"{layer.name}\n{int(layer.kept.sum()):,} of {layer.kept.size:,} kept")
    if labels:
        _name_columns(axes[0], labels)
    bar = figure.colorbar(scale, ax=list(axes), shrink=0.8, aspect=25, pad=0.02)
    bar.set_label("Weight" if weights else "Inclusion probability")
    bar.outline.set_linewidth(0.5)
    colour = np.asarray(scale.get_cmap()(0.9)[:3])
    pale: Any = faded(colour)
    handles = [Patch(color=tuple(colour), label="kept"), Patch(color=tuple(pale), label=pruned)]
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles])


def _draw(ax: Axes, layer: Layer, turn: bool, shown: Array) -> None:
    shown = np.where(layer.kept[..., None], shown, faded(shown))
    image = ax.imshow(
        shown.transpose(1, 0, 2) if turn else shown, aspect="auto", interpolation="nearest"
    )
    image.set_label(f"matrix {layer.name}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(True)
    if shown.shape[0 if turn else 1] == 1:
        ax.set_xticks([])


def _counted(name: str, alive: Array) -> str:
    return f"{name} ({int(alive.sum())} of {len(alive)} kept)"


def _name_columns(ax: Axes, labels: Sequence[str]) -> None:
    """Name runs of columns that share a name, such as those of one category."""
    starts = [i for i, name in enumerate(labels) if i == 0 or name != labels[i - 1]]
    if len(starts) > _MOST_NAMES:
        return
    ends = [*starts[1:], len(labels)]
    ax.set_xticks(
        [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)],
        [labels[start] for start in starts],
        rotation=90,
        fontsize=7 if len(starts) <= 30 else 5,
    )
    for start in starts[1:] if len(starts) < len(labels) else ():
        ax.axvline(start - 0.5, color="white", linewidth=0.6)
