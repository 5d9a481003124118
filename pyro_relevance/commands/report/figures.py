"""Figures of a page as text: PNG pictures inside ``data:`` addresses, with what they show."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pyro_relevance import plots
from pyro_relevance.posterior.arviz import convert as report

__all__ = ["Picture", "pictures_of"]

MOST_PIXELS = 1400
"""Width of a picture on the page: that of two columns of a paper at 200 dots an inch."""

TITLES = {
    "relevance": "How probable and how strong each input is",
    "effect_inclusion": "Effect against inclusion probability",
    "network": "The network, and what was pruned",
    "observed_predicted": "Observed against predicted",
    "calibration": "Calibration of the predictions",
    "path": "What each density costs",
    "training": "The training",
}
"""Titles of the figures in the order of the page."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure of the page.

    Args:
        key: Name of the figure.
        title: Its heading.
        caption: What it shows, in sentences: the caption, and the text for those who do not see.
        address: The picture as a ``data:`` address.
        width: Pixels.
        height: Pixels.
    """

    key: str
    title: str
    caption: str
    address: str
    width: int
    height: int


def pictures_of(folder: Path, class_names: Sequence[str] = ()) -> list[Picture]:
    """Return the figures of a run folder, and those that its posterior gives.

    A figure that cannot be drawn from what the folder has is left out.

    Args:
        folder: Run folder of ``pyro-relevance table``.
        class_names: Names of the classes, in order.
    """
    found: dict[str, bytes] = {}
    for name in TITLES:
        file = folder / f"{name}.png"
        if file.is_file():
            found[name] = file.read_bytes()
    file = folder / "posterior.nc"
    if file.is_file():
        idata = report.load(file)
        for name, draw in _drawn(class_names):
            if name not in found:
                found |= _png(name, draw, idata)
    return [_picture(name, found[name]) for name in TITLES if name in found]


def _drawn(class_names: Sequence[str]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    yield "effect_inclusion", plots.effect_inclusion
    yield "observed_predicted", plots.observed_predicted
    yield "calibration", partial(plots.calibration, class_names=class_names or None)


def _png(name: str, draw: Callable[[Any], Any], idata: Any) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # xarray's, about its own future
        try:
            return {name: plots.as_png(draw(idata), dots=(200, 150, 100))}
        except ValueError:
            return {}  # no test rows, or no gates: nothing to draw


def _picture(name: str, content: bytes) -> Picture:
    with Image.open(io.BytesIO(content)) as image:
        caption = str(image.info.get("Description") or f"{TITLES[name]}.")
        width, height = image.size
        if width > MOST_PIXELS:
            # The colours of a palette cannot be averaged; those of a picture can.
            size = (MOST_PIXELS, round(height * MOST_PIXELS / width))
            smaller = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            written = io.BytesIO()
            smaller.quantize(256, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
            (width, height), content = size, written.getvalue()
    address = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return Picture(name, TITLES[name], caption, address, width, height)
