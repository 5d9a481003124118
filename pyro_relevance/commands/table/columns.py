"""Rows of text as aligned lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

__all__ = ["aligned", "span"]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the header and the rows as lines, the first column to the left, others to the right.

    Args:
        header: Names of the columns.
        rows: Cells of each row, as many as there are columns.
    """
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = []
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def span(low: SupportsFloat, high: SupportsFloat) -> str:
    """Return two numbers as the ends of a range."""
    return f"{float(low):.2f} .. {float(high):.2f}"
