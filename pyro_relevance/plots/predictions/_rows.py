"""Predictions and outcomes of rows, from either of two groups of an ArviZ object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pyro_relevance.plots._data import Array, pooled, select

__all__ = ["Rows", "Where", "rows_of"]

Where = Literal["predictions", "posterior_predictive"]
"""New rows, or the rows that were trained on (or held out by a cross-validation)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Draws for rows whose outcome is known.

    Attributes:
        drawn: ``(num_draws, num_rows)`` drawn outcomes.
        mean: ``(num_draws, num_rows)`` expected outcomes or ``(num_draws, num_rows,
            num_classes)`` probabilities, where the group has them.
        observed: ``(num_rows,)`` outcomes.
        names: Names of the classes, where there are.
        what: The rows in words.
    """

    drawn: Array
    mean: Array | None
    observed: Array
    names: tuple[str, ...]
    what: str

    @property
    def are_classes(self) -> bool:
        """Whether outcomes are classes."""
        whole = self.mean is None and self.drawn.dtype.kind in "iu"
        return whole or (self.mean is not None and self.mean.ndim == 3)

    @property
    def predicted(self) -> Array:
        """``(num_rows,)`` means over draws, or ``(num_rows, num_classes)`` probabilities."""
        if self.mean is not None:
            return np.asarray(self.mean.mean(axis=0))
        if not self.are_classes:
            return np.asarray(self.drawn.mean(axis=0))
        labels = range(int(max(self.drawn.max(), self.observed.max())) + 1)
        return np.asarray((self.drawn[:, :, None] == np.asarray(labels)).mean(axis=0))


def rows_of(idata: Any, where: Where) -> Rows:
    """Read the rows of a group.

    Raises:
        ValueError: If the object has no such rows with known outcomes, or several targets a row.
    """
    known = {"predictions": "predictions_constant_data", "posterior_predictive": "observed_data"}
    if where not in known:
        raise ValueError(f"Expected where in {list(known)}, but got {where!r}. Choose one of them.")
    drawn, outcome = select(idata, where), select(idata, known[where])
    if "y" not in drawn or "y" not in outcome:
        raise ValueError(
            f"Expected 'y' in {where} and {known[where]}, but got {sorted(map(str, outcome))}. "
            "Pass the targets of the rows to to_arviz."
        )
    observed = outcome["y"].to_numpy()
    if observed.ndim != 1:
        raise ValueError(
            f"Expected one target a row, but got targets of shape {observed.shape}. Draw models "
            "with several targets one by one."
        )
    mean = drawn.get("y_mean")
    classes = () if mean is None or mean.ndim < 4 else mean[mean.dims[-1]].to_numpy()
    what = "new rows" if where == "predictions" else "rows of observed_data"
    return Rows(
        pooled(drawn["y"]),
        None if mean is None else pooled(mean),
        observed,
        tuple(str(name) for name in classes),
        f"{len(observed):,} {what}",
    )
