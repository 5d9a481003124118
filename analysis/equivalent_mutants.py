"""Mutants that are the same function written differently, each read and decided on its own.

A mutant belongs here only if nobody could tell it apart by what the library computes, writes or
refuses. A fault that a test could catch and does not is a survivor, and no entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.mutants import Mutant

__all__ = ["EQUIVALENT", "Equivalent", "reason_of"]


@dataclass(frozen=True)
class Equivalent:
    """One mutant and why it is the same function.

    Attributes:
        path: Module, from ``pyro_relevance``.
        function: Dotted name of the function or class.
        before: The line as it is, stripped.
        after: The line with the fault, stripped.
        reason: Why no result differs.
    """

    path: str
    function: str
    before: str
    after: str
    reason: str


EQUIVALENT: tuple[Equivalent, ...] = ()


def reason_of(path: str, mutant: Mutant) -> str | None:
    """Return why a mutant of ``path`` (from the top of the repository) is equivalent, if it is."""
    for entry in EQUIVALENT:
        known = (f"pyro_relevance/{entry.path}", entry.function, entry.before, entry.after)
        if known == (path, mutant.function, mutant.before, mutant.after):
            return entry.reason
    return None
