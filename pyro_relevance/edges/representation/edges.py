"""The summary of the edges of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_relevance.edges.representation.summary import Summary, counted_groups

if TYPE_CHECKING:
    from pyro_relevance.edges.edges import Edges

__all__ = ["summary_of"]


def summary_of(edges: Edges) -> Summary:
    """Return the groups of edges, and what could not be offered.

    Args:
        edges: The edges of a network.
    """
    every = [*edges.groups, *edges.operations]
    facts = [counted_groups([(group.name, group.num_edges) for group in every])]
    if edges.skipped:
        facts.append(f"{len(edges.skipped)} skipped")
    rows = [
        (
            group.name,
            group.granularity,
            f"{group.num_edges:,}",
            ", ".join(dict.fromkeys(slot.tensor for slot in group.consumers))
            or ", ".join(group.labels),
        )
        for group in every
    ]
    notes = tuple(f"Skipped {item.name}: {item.reason}" for item in edges.skipped[:5])
    if len(edges.skipped) > 5:
        notes += (f"… and {len(edges.skipped) - 5} more skipped.",)
    header = ("group", "granularity", "edges", "read by")
    return Summary("Edges", tuple(facts), header, tuple(rows), notes)
