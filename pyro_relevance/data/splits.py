"""Random splits of data: of tensors, of rows of a table, for validation, into folds.

Every split has a generator of its own, so that it depends on its seed alone. Only `split_examples`
may draw from torch's global generator, where a run has seeded that one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "Examples",
    "cross_validation_folds",
    "split_examples",
    "split_rows",
    "train_validation",
]

Examples = tuple[Tensor, Tensor]
"""``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``."""


def split_examples(
    data: Examples, held_out: float, generator: torch.Generator | None = None
) -> tuple[Examples, Examples]:
    """Return the examples for training and those held out, in random order.

    Args:
        data: The examples.
        held_out: Share of the examples in the second part.
        generator: Of the processor, whose draws are the same on every device; ``None`` for torch's
            global generator of the device where the examples are.

    Raises:
        ValueError: If inputs and targets differ in number, or one of the parts would be empty.
    """
    x, y = data
    number = round(held_out * len(x))
    if not 1 <= number < len(x) or len(x) != len(y):
        raise ValueError(
            f"Expected as many inputs as targets, and at least one example in each part at "
            f"held_out={held_out:.0%}, but got {len(x)} inputs and {len(y)} targets."
        )
    if generator is None:
        order = torch.randperm(len(x), device=x.device)
    else:
        order = torch.randperm(len(x), generator=generator).to(x.device)
    kept, held = order[number:], order[:number]
    return (x[kept], y[kept]), (x[held], y[held])


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


def train_validation(num_data: int, num_validation: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rows to train on, and the rest of the training set to choose settings by.

    Args:
        num_data: Size of the training set.
        num_validation: Validation rows carved from it.
        seed: Seed of a generator of its own; the global one is not touched.

    Returns:
        Two int64 tensors of row numbers, each ascending; together all rows, once.

    Raises:
        ValueError: If one of the sides would be empty.
    """
    if not 0 < num_validation < num_data:
        raise ValueError(
            f"Expected num_validation between 1 and {num_data - 1}, but got {num_validation}. "
            "Leave rows on either side."
        )
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(seed))
    return order[num_validation:].sort().values, order[:num_validation].sort().values


def cross_validation_folds(
    num_rows: int, num_folds: int, *, seed: int = 0
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Return random folds of equal size, and the rows that are not in each.

    Args:
        num_rows: Number of rows; a remainder is in no fold.
        num_folds: Number of folds.
        seed: Seed of the order.

    Returns:
        Row numbers of each fold and of the rest, ascending.

    Raises:
        ValueError: If there are fewer than two folds or fewer rows than folds.
    """
    if not 2 <= num_folds <= num_rows:
        raise ValueError(f"Expected 2 <= num_folds <= {num_rows} rows, but got {num_folds}.")
    order = np.random.default_rng(seed).permutation(num_rows)
    size = num_rows // num_folds
    folds = [np.sort(order[k * size : (k + 1) * size]) for k in range(num_folds)]
    return folds, [np.setdiff1d(order, fold) for fold in folds]
