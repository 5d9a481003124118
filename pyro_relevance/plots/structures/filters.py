"""The filters of a convolution: what stays and what is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, one_chain, select, weight_of
from pyro_relevance.plots._graph import probabilities
from pyro_relevance.plots._style import COLOURS, GREY, Width, describe, figure_of, inches, styled

__all__ = ["filters"]


@styled
def filters(
    idata: Any,
    tensor: str,
    *,
    mask: Mapping[str, Any] | None = None,
    chain: int = 0,
    threshold: float = 0.5,
    max_filters: int = 64,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """The kernels of a convolution, one picture a filter, the surest ones first.

    A kernel of several input channels is averaged over them. Above each is the probability that the
    filter is included; pruned ones are pale with a dashed frame. Red is positive, blue negative,
    white zero, on one scale for all filters.

    Args:
        idata: What `to_arviz` returned.
        tensor: Name of the weight, such as ``"0.weight"``.
        mask: The kept edges (True = kept); ``None`` keeps those with p > ``threshold``.
        chain: The chain to draw, counted from 0.
        threshold: Probability, where ``mask`` is ``None``.
        max_filters: Filters that are shown.
        width: Columns of a paper.
        figsize: Width and height, inches.

    Raises:
        ValueError: If there is no such weight of a two-dimensional convolution.
    """
    dataset = one_chain(select(idata, "relevance"), chain)
    found = {name: (p, kept) for name, _, p, kept in probabilities(dataset, mask, threshold)}
    weight = weight_of(idata, tensor, chain)
    if tensor not in found or weight is None or weight.ndim != 4:
        raise ValueError(
            f"Expected the name of the weight of a convolution among {sorted(found)}, but got "
            f"{tensor!r}. Choose one with two dimensions of a kernel."
        )
    p = found[tensor][0].reshape(len(weight), -1).max(1)
    kept: Array = np.asarray(found[tensor][1].reshape(len(weight), -1).any(1))
    order = np.lexsort((np.arange(len(p)), -np.round(100 * p), ~kept))[:max_filters]
    columns = min(len(order), 16 if width == "double" else 8)
    rows = -(-len(order) // columns)
    wide = inches(width)
    figure = figure_of(wide, rows * (wide / columns + 0.12) + 0.1, figsize)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    kernels = weight.mean(1)
    most = float(np.abs(kernels).max()) or 1.0
    for ax in panels[len(order) :]:
        ax.set_axis_off()
    for ax, number in zip(panels, order, strict=False):
        _draw(ax, kernels[number], most, kept=bool(kept[number]))
        ax.set_title(f"{p[number]:.2f}", fontsize=6, pad=2)
    describe(
        figure,
        f"{len(order)} of {len(p)} filters of {tensor} in chain {chain}, the surest ones first, "
        f"with their inclusion probabilities: {int(kept.sum())} are kept, the pale ones with "
        f"dashed frames are pruned. Red: positive, blue: negative, up to {most:.2g}.",
    )
    return figure


def _draw(ax: Axes, kernel: Array, most: float, *, kept: bool) -> None:
    ax.imshow(kernel, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest",
              alpha=1.0 if kept else 0.3)  # fmt: skip
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set(visible=True, color=COLOURS[0] if kept else GREY,
                 linestyle="solid" if kept else "dashed")  # fmt: skip
