"""Files of the figures of experiments, in one style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from pyro_relevance import plots

__all__ = ["FIGURES", "save_figure"]

FIGURES = Path(__file__).parent / "figures"


def save_figure(draw: Callable[[], Figure], name: str) -> None:
    """Draw a figure, write it as PDF and PNG, and print where.

    Args:
        draw: Makes the figure.
        name: Name of the files.
    """
    FIGURES.mkdir(exist_ok=True)
    with matplotlib.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    ):
        paths = plots.save(draw(), FIGURES / name)
    print(*paths)
