"""Which pixels an image network reads, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, group_named, select
from pyro_relevance.plots._matrix import COLOURMAP
from pyro_relevance.plots._style import Width, describe, figure_of, inches, styled

__all__ = ["pixels"]


@styled
def pixels(
    idata: Any,
    *,
    shape: tuple[int, ...],
    group: str = "inputs",
    width: Width = "single",
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Two maps of the pixels: mean inclusion probability, and its uncertainty.

    Uncertainty is the standard deviation of the gate over draws of all chains, sqrt(p (1 - p)) with
    p their mean: one half where the posterior does not know, zero where it is sure. Pixels of
    several channels are averaged over them.

    Args:
        idata: What `to_arviz` returned of a network whose inputs are pixels.
        shape: ``(height, width)`` or ``(channels, height, width)`` of an image.
        group: Name of the group of inputs.
        width: Columns of a paper.
        figsize: Width and height, inches.

    Raises:
        ValueError: If the group has another number of edges than an image has pixels.

    Example:
        ``plots.pixels(idata, shape=(28, 28))``
    """
    dataset = select(idata, "relevance")
    described = group_named(dataset, group)
    name = f"{described['variable']}_inclusion_probability"
    if name not in dataset:
        raise ValueError(
            f"Expected gates of group {group!r}, but got {sorted(map(str, dataset.data_vars))}. "
            "Fit a model with gates."
        )
    p = dataset[name].mean(("chain", "draw")).to_numpy()
    if len(shape) not in (2, 3) or int(np.prod(shape)) != p.size:
        raise ValueError(
            f"Expected shape (height, width) or (channels, height, width) of {p.size} pixels, but "
            f"got {shape}. Pass the shape of an image."
        )
    maps = (p.reshape(-1, *shape[-2:]), np.sqrt(p * (1 - p)).reshape(-1, *shape[-2:]))
    figure = figure_of(inches(width), 0.5 * inches(width) + 0.15, figsize)
    axes = figure.subplots(1, 2)
    for ax, image, title, most in zip(
        axes, maps, ("Inclusion probability", "Uncertainty"), (1.0, 0.5), strict=True
    ):
        _draw(ax, figure, image.mean(0), title, most)
    chains = dataset.sizes["chain"]
    describe(
        figure,
        f"Pixels of {shape[-2]} by {shape[-1]} images: mean inclusion probability over {chains} "
        f"chain{'s' if chains > 1 else ''} (left) and standard deviation of the gate (right). "
        f"{int((p > 0.5).sum()):,} of {p.size:,} pixels have a probability above 1/2.",
    )
    return figure


def _draw(ax: Axes, figure: Figure, image: Array, title: str, most: float) -> None:
    shown = ax.imshow(image, cmap=COLOURMAP, vmin=0, vmax=most, interpolation="nearest")
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    bar = figure.colorbar(shown, ax=ax, shrink=0.9, aspect=20, pad=0.03)
    bar.outline.set_linewidth(0.5)
