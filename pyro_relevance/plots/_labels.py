"""Names beside points that do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pyro_relevance.plots._data import Array
from pyro_relevance.plots._style import root_figure

__all__ = ["place_labels"]

_OFFSETS = (
    *((5, 0, "left", "center"), (-5, 0, "right", "center")),
    *((0, 5, "center", "bottom"), (0, -5, "center", "top")),
    *((5, 5, "left", "bottom"), (-5, 5, "right", "bottom")),
    *((5, -5, "left", "top"), (-5, -5, "right", "top")),
    *((10, 12, "left", "bottom"), (-10, 12, "right", "bottom")),
    *((10, -12, "left", "top"), (-10, -12, "right", "top")),
)
"""Where a name may stand, in points from its point, the best place first."""


def place_labels(
    ax: Axes, points: Array, names: Sequence[str], *, fontsize: float = 6.0, avoid: float = 3.0
) -> list[str]:
    """Write names beside points, the first ones first, and return those that found no room.

    Args:
        ax: Axes whose limits and scales are final.
        points: ``(num_points, 2)`` in data coordinates; all of them are kept free.
        names: Name of each point; "" for none.
        fontsize: Size of the names.
        avoid: Half the side of the square around a point that stays free, in points.
    """
    figure = root_figure(ax)
    figure.draw_without_rendering()  # places the axes
    place = ax.transData.transform(points)
    half = avoid * figure.dpi / 72.0
    taken = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in place]
    inside = ax.get_window_extent()
    left_out = []
    for number, name in enumerate(names):
        if not name or not np.isfinite(place[number]).all():
            continue
        others = taken[:number] + taken[number + 1 :]
        box = _written(ax, points[number], name, fontsize, others, inside)
        if box is None:
            left_out.append(name)
        else:
            taken.append(box)
    return left_out


def _written(
    ax: Axes, point: Array, name: str, fontsize: float, taken: Sequence[Bbox], inside: Bbox
) -> Bbox | None:
    """Write one name where it overlaps nothing, and return its box; ``None`` where it does not."""
    for x, y, horizontal, vertical in _OFFSETS:
        text: Annotation = ax.annotate(
            name,
            tuple(point),
            xytext=(x, y),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=fontsize,
            zorder=6,
            path_effects=[withStroke(linewidth=1.6, foreground="white")],
        )
        box = text.get_window_extent()
        if (
            inside.contains(*box.min)
            and inside.contains(*box.max)
            and not box.count_overlaps(taken)
        ):
            return box
        text.remove()
    return None
