"""The look shared by all plots: widths of a paper's columns, colours, and files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance._files import replacing

__all__ = [
    "COLOURS",
    "DOUBLE_COLUMN",
    "GREY",
    "SINGLE_COLUMN",
    "Width",
    "as_png",
    "axes_of",
    "caption",
    "describe",
    "figure_of",
    "inches",
    "legend_below",
    "root_figure",
    "save",
    "styled",
]

SINGLE_COLUMN = 3.35
"""Width of a figure in one column of a paper, inches."""
DOUBLE_COLUMN = 6.9
"""Width of a figure over both columns of a paper, inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinct under the common colour vision deficiencies (Okabe and Ito, 2008)."""
GREY = "#8C8C8C"

Width = Literal["single", "double"]
"""Columns of a paper that a figure fills."""

MOST_BYTES = 1_000_000
"""Size of a PNG file, at most: a figure with more colours than a palette has is given one."""

_CAPTIONS: WeakKeyDictionary[Figure, list[str]] = WeakKeyDictionary()

_STYLE = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "figure.dpi": 100.0,
    "savefig.dpi": 300.0,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(plot: Callable[_P, _R]) -> Callable[_P, _R]:
    """``plot`` under the look of this library; matplotlib's settings are restored."""

    @wraps(plot)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _style():
            return plot(*args, **kwargs)

    return inner


def save(figure: Figure, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a figure as PDF (text stays text) and PNG (300 dots per inch).

    The caption is in the metadata of both: ``Subject`` of the PDF, ``Description`` of the PNG. A
    PNG file has at most 1 MB; a large one gets a palette of 256 colours, then fewer dots. Each file
    is written under a temporary name and renamed, so a failure leaves the previous one as it was.

    Args:
        figure: What a plot returned.
        path: The files' common name, without ``.pdf`` or ``.png``.

    Returns:
        The paths of the PDF and of the PNG.

    Raises:
        ValueError: If the path already ends in ``.pdf`` or ``.png``.
        FileNotFoundError: If the folder does not exist.

    Example:
        ``plots.save(plots.relevance(idata), "figures/relevance")``
    """
    stem = os.fspath(path)
    if stem.endswith((".pdf", ".png")):
        raise ValueError(
            f"Expected a path without suffix, but got {stem}. Drop the suffix: both files are "
            "written."
        )
    pdf, png = Path(f"{stem}.pdf"), Path(f"{stem}.png")
    with _style(), replacing(pdf) as temporary_pdf, replacing(png) as temporary_png:
        text = caption(figure)
        # without a date, the same figure is the same file
        figure.savefig(
            temporary_pdf, metadata={"CreationDate": None, **({"Subject": text} if text else {})}
        )
        temporary_png.write_bytes(as_png(figure))
    return pdf, png


def as_png(figure: Figure, *, dots: Sequence[int] = (300, 200, 150, 100)) -> bytes:
    """Return a figure as a PNG file of at most `MOST_BYTES`, with its caption in it.

    Args:
        figure: The figure.
        dots: Dots per inch; the next are tried where a file is too large.
    """
    from PIL import Image, PngImagePlugin

    text = caption(figure)
    described = PngImagePlugin.PngInfo()
    if text:
        described.add_itxt("Description", text)
    content = b""
    for resolution in dots:
        drawn = io.BytesIO()
        with _style():
            figure.savefig(drawn, dpi=resolution, format="png")
        with Image.open(drawn) as image:
            picture = image.convert("RGB")
        for palette in (False, True):
            # Without dithering: flat colours stay flat.
            shown = picture.quantize(256, dither=Image.Dither.NONE) if palette else picture
            file = io.BytesIO()
            shown.save(file, "PNG", optimize=True, pnginfo=described, dpi=(resolution, resolution))
            content = file.getvalue()
            if len(content) <= MOST_BYTES:
                return content
    return content


def describe(figure: Figure, text: str) -> None:
    """Keep what a figure shows, as a caption would say it; a figure may have several parts.

    Args:
        figure: The figure.
        text: Sentences.
    """
    _CAPTIONS.setdefault(figure, []).append(text)


def caption(figure: Figure) -> str:
    """Return what a figure of this library shows, in sentences for a caption or an alt text.

    Args:
        figure: What a plot returned.

    Returns:
        The text; empty for a figure that no plot of this library drew into.

    Example:
        ``print(plots.caption(plots.relevance(idata)))``
    """
    return " ".join(_CAPTIONS.get(figure, ()))


def inches(width: Width) -> float:
    """Return the width of one or two columns in inches.

    Raises:
        ValueError: If it is neither.
    """
    known = {"single": SINGLE_COLUMN, "double": DOUBLE_COLUMN}
    if width not in known:
        raise ValueError(f"Expected width in {list(known)}, but got {width!r}. Choose one of them.")
    return known[width]


def figure_of(width: float, height: float, figsize: tuple[float, float] | None) -> Figure:
    """A figure that belongs to no window, of ``figsize`` or else ``(width, height)`` inches."""
    return Figure(figsize=figsize or (width, height), layout="constrained")


def axes_of(
    ax: Axes | None, width: float, height: float, figsize: tuple[float, float] | None
) -> tuple[Figure, Axes]:
    """The figure and the axes to draw into: those given, or new ones of a size in inches."""
    if ax is not None:
        return root_figure(ax), ax
    figure = figure_of(width, height, figsize)
    return figure, figure.subplots()


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Write a legend below all panels, in as many columns as the figure is wide for.

    Args:
        figure: The figure.
        handles: What is named.
        labels: Names.
    """
    # A letter of 7 points is about 0.055 inches wide; the mark and the gaps beside it half an inch.
    entry = 0.055 * max(map(len, labels)) + 0.5
    columns = max(1, min(len(labels), int(figure.get_figwidth() / entry)))
    rows = -(-len(labels) // columns)
    # As few columns as give the same number of rows: no row with one entry.
    columns = -(-len(labels) // rows)
    figure.legend(list(handles), list(labels), loc="outside lower center", ncols=columns)


def root_figure(ax: Axes) -> Figure:
    """The whole figure that axes stand on.

    Raises:
        ValueError: If the axes belong to no figure.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError(
            "Expected ax on a figure, but got axes of none. Pass axes of a live figure."
        )
    return figure


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]
