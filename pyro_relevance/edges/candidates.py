"""The protocol of a module whose edges are operations: it lists the candidates of each edge.

`graphs.Graph` implements it for `find_edges`. Any other module that multiplies candidates by a
buffer of gates may implement it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["HasOperations", "OperationCandidates"]


@dataclass(frozen=True, slots=True)
class OperationCandidates:
    """The candidate operations of one edge.

    Args:
        group: ``structure.source.target``; edges of the same name share one choice.
        names: Names of the candidates, in the order of the gates.
        gate: Name of the ``(num_operations,)`` buffer, within the module, that the gates multiply.
    """

    group: str
    names: tuple[str, ...]
    gate: str


@runtime_checkable
class HasOperations(Protocol):
    """A module with edges that are operations."""

    def operation_candidates(self) -> Iterator[OperationCandidates]:
        """Yield each edge that has a choice, in a fixed order."""
        ...
