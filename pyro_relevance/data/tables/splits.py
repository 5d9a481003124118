"""Random training and test rows of a table: ``split_rows``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["split_rows"]


def split_rows(
    num_rows: int,
    *,
    test_fraction: float = 0.1,
    seed: int = 0,
    labels: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random training and test rows, each in ascending order; together they are all rows, once.

    Args:
        num_rows: Number of rows, 2 or more.
        test_fraction: Share of test rows, between 0 and 1; at least one row is on either side.
        seed: Seed of a generator of its own; the global ones are not touched.
        labels: ``(num_rows,)`` classes whose shares are kept on both sides (each class stays in
            the training rows); ``None`` for a plain split.

    Returns:
        ``(train_rows, test_rows)``, int64 row numbers counted from 0.

    Raises:
        ValueError: If an argument is out of range, or ``labels`` has another length.
    """
    if num_rows < 2 or not 0 < test_fraction < 1:
        raise ValueError(
            "Expected at least 2 rows and a test_fraction between 0 and 1, but got "
            f"{num_rows} rows and {test_fraction}. Pass a table with more rows, or 0.1."
        )
    generator = np.random.default_rng(seed)
    num_test = min(max(1, round(test_fraction * num_rows)), num_rows - 1)
    order = generator.permutation(num_rows)
    if labels is None:
        return np.sort(order[num_test:]), np.sort(order[:num_test])
    groups, group_of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if group_of.shape != (num_rows,):
        raise ValueError(
            f"Expected labels of shape ({num_rows},), but got {np.shape(labels)}. "
            "Pass one class for each row."
        )
    sizes = np.bincount(group_of)
    exact = sizes * (num_test / num_rows)
    takes = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    # Largest remainders get the rows that rounding down left over; no class loses its last row.
    for group in np.argsort(takes - exact, kind="stable"):
        takes[group] += int(takes.sum() < num_test and takes[group] < sizes[group] - 1)
    chosen = [order[group_of[order] == group][: takes[group]] for group in range(len(groups))]
    test = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(num_rows), test), test
