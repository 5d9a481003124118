"""The history of a training: negative ELBO, temperature and expected size by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, select
from pyro_relevance.plots._style import COLOURS, Width, describe, figure_of, inches, styled

__all__ = ["training"]

_PANELS = {
    "loss": "Negative ELBO",
    "temperature": "Temperature",
    "expected_size": "Expected size",
}
_LOGARITHMIC_FROM = 8.0


@styled
def training(
    idata: Any, *, width: Width = "double", figsize: tuple[float, float] | None = None
) -> Figure:
    """Three panels against the training step: negative ELBO, temperature, expected size.

    Each chain is a thin line, their mean a thick one. A panel whose values are positive and span a
    factor of 8 or more has a logarithmic axis.

    Args:
        idata: What `to_arviz` returned for a posterior with a history.
        width: Columns of a paper; in one column the panels stand below each other.
        figsize: Width and height, inches.

    Returns:
        The figure.

    Raises:
        ValueError: If the object holds no training history (group ``sample_stats``).
    """
    dataset = select(idata, "sample_stats")
    missing = [name for name in _PANELS if name not in dataset]
    if missing:
        raise ValueError(
            f"Expected sample_stats with {list(_PANELS)}, but got none of {missing}. "
            "Convert a posterior that has a history."
        )
    shape = (len(_PANELS), 1) if width == "single" else (1, len(_PANELS))
    figure = figure_of(inches(width), 1.8 * shape[0] + 0.2, figsize)
    steps = dataset["step"].to_numpy()
    for ax, (name, title) in zip(figure.subplots(*shape), _PANELS.items(), strict=True):
        array = dataset[name].transpose("chain", "step")
        _panel(ax, steps, array.to_numpy())
        units = array.attrs.get("units", "1")
        ax.set_ylabel(title if units == "1" else f"{title} ({units})")
        ax.set_xlabel("Training step")
    figure.get_axes()[0].legend(loc="upper right")
    number = dataset.sizes["chain"]
    describe(
        figure,
        f"Negative ELBO, temperature and expected number of parameters over {int(steps[-1]):,} "
        f"training steps: {number} chain{'s' if number > 1 else ''} (thin) and their mean (thick).",
    )
    return figure


def _panel(ax: Axes, steps: Array, values: Array) -> None:
    """``(chain, step)`` values as thin lines, their mean on top."""
    same = bool(np.all(values == values[:1]))
    for number, chain in enumerate([] if same else values):
        ax.plot(
            steps,
            chain,
            color=COLOURS[5],
            linewidth=0.5,
            alpha=0.8,
            label="one chain" if number == 0 else None,
        )
    ax.plot(steps, values.mean(axis=0), color=COLOURS[0], linewidth=1.3, label="mean")
    if values.min() > 0 and values.max() / values.min() >= _LOGARITHMIC_FROM:
        ax.set_yscale("log")
    ax.margins(x=0.02)
