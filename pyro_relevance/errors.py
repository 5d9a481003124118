"""What the library raises and warns.

Wrong arguments raise ``ValueError`` or ``TypeError``; the classes below exist only where a caller
would want to catch one failure apart from all others.
"""

from __future__ import annotations

__all__ = [
    "ApproximationWarning",
    "ArchitectureError",
    "CheckpointError",
    "CollapseWarning",
    "ConvergenceWarning",
    "DataError",
    "DivergenceError",
    "EdgeError",
    "InUseError",
    "NotFittedError",
    "SurgeryError",
]


class EdgeError(ValueError):
    """Edges do not fit the network, or a network has no candidate edge."""


class ArchitectureError(ValueError):
    """A choice of operations does not fit its graph, or has no path from input to output."""


class DataError(ValueError):
    """A table or data set cannot be used as it is."""


class NotFittedError(RuntimeError):
    """A result was asked for before there is one."""


class SurgeryError(RuntimeError):
    """A network cannot be pruned exactly, or the pruned network differs from the masked one."""


class CheckpointError(RuntimeError):
    """A file of the library is missing, damaged, or belongs to another run."""


class InUseError(CheckpointError):
    """Another process works in the run folder or on the checkpoint."""


class DivergenceError(RuntimeError):
    """Training met a non-finite or exploding loss; the last good state was kept.

    Args:
        message: What happened and what to do.
        site: Name of the Pyro site or parameter where it showed first.
        step: Training step (counted from 0) at which it showed.
        fit: The result up to the last good state, or ``None`` where there is none.
    """

    def __init__(self, message: str, *, site: str, step: int, fit: object = None) -> None:
        super().__init__(message)
        self.site = site
        self.step = step
        self.fit = fit


class CollapseWarning(UserWarning):
    """A posterior over operations has an end point that is known to be bad."""


class ConvergenceWarning(UserWarning):
    """A fit failed: there is nothing to report from it. ``diagnose`` says why and what to do."""


class ApproximationWarning(UserWarning):
    """A number is asked of a posterior that is known not to give it."""
