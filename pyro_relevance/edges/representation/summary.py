"""A summary of a result, as a line of text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Summary", "counted_groups"]

MOST_ROWS = 20
"""Rows of a table in a notebook."""
MOST_GROUPS = 4
"""Groups that are named in a line."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a result says of itself.

    Args:
        name: Name of its type.
        facts: What matters most, a few words each.
        header: Names of the columns of a table.
        rows: Cells of the table, as many as there are columns.
        notes: Sentences below it.
    """

    name: str
    facts: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line: ``Name(fact, fact)``."""
        return f"{self.name}({', '.join(self.facts)})"

    def html(self) -> str:
        """Return a heading, a table and notes; every text is escaped."""
        facts = f": {escape(', '.join(self.facts))}" if self.facts else ""
        parts = [f"<p><b>{escape(self.name)}</b>{facts}</p>"]
        if self.rows:
            head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
            body = "".join(
                "<tr>"
                + f'<th scope="row" style="text-align:left">{escape(row[0])}</th>'
                + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
                + "</tr>"
                for row in self.rows[:MOST_ROWS]
            )
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        left = len(self.rows) - MOST_ROWS
        notes = [f"… and {left} more rows.", *self.notes] if left > 0 else [*self.notes]
        parts += [f"<p>{escape(note)}</p>" for note in notes]
        return f"<div>{''.join(parts)}</div>"


def counted_groups(counts: Sequence[tuple[str, int]]) -> str:
    """Return names of groups with their numbers of edges, the first few of them.

    Args:
        counts: Name and number of edges of each group.
    """
    named = [f"{name} {count:,}" for name, count in counts[:MOST_GROUPS]]
    more = len(counts) - MOST_GROUPS
    return ", ".join(named + ([f"{more} more groups"] if more > 0 else [])) or "no groups"
