"""Plans of a comparison that take little time, without looking at the clock."""

from __future__ import annotations

_NUMBERS = {
    "num_epochs": 2,
    "num_epochs_after": 2,
    "num_epochs_round": 1,
    "num_rounds": 2,
    "num_queries": 8,
    "num_epochs_query": 1,
    "num_candidates": 5,
}
_WANTED = {
    "dense": ("num_epochs",),
    "small": ("num_epochs",),
    "random-architecture": ("num_epochs",),
    "gradual-magnitude": ("num_epochs",),
    "budget-weights": ("num_epochs",),
    "budget-weights-magnitude": ("num_epochs",),
    "uniform-widths": ("num_epochs",),
    "magnitude": ("num_epochs", "num_epochs_round", "num_rounds"),
    "lottery-ticket": ("num_epochs", "num_rounds"),
    "single-path": ("num_epochs", "num_candidates", "num_epochs_after"),
    **dict.fromkeys(
        ("random-search", "evolution", "reinforce"),
        ("num_queries", "num_epochs_query", "num_epochs_after"),
    ),
}


def small_plan(method: str) -> dict[str, int]:
    """Return a plan of a method, by its name."""
    return {
        name: _NUMBERS[name] for name in _WANTED.get(method, ("num_epochs", "num_epochs_after"))
    }
