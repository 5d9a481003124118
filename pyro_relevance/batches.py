"""Training data on the device, and the stream of minibatches that each chain sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

__all__ = ["Batches", "Data", "as_tensors"]

Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any] | Sequence[tuple[Tensor, Tensor]]"
"""One pair ``(x, y)``, a map-style ``torch`` data set of such pairs, or a list of pairs, one for each chain."""


def as_tensors(data: Any) -> tuple[Tensor, Tensor]:
    """Return one data set as a pair of tensors ``x: (num_data, ...)`` and ``y: (num_data, ...)``.

    Raises:
        TypeError: If ``data`` is neither a pair of tensors nor a map-style data set of pairs.
        ValueError: If it is empty, or ``x`` and ``y`` differ in length.
    """
    if isinstance(data, DataLoader):
        raise TypeError(
            "Expected tensors or a data set, but got a DataLoader. Pass loader.dataset and batch_size: the data are "
            "kept on the device, which is faster and makes a run repeatable."
        )
    if isinstance(data, TensorDataset):
        data = data.tensors
    elif isinstance(data, Dataset):
        if not hasattr(data, "__len__"):
            raise TypeError("Expected a map-style data set with a length, but got an iterable one.")
        items = [data[i] for i in range(len(data))]
        data = tuple(torch.stack([torch.as_tensor(item[k]) for item in items]) for k in (0, 1)) if items else ()
        if not items:
            raise ValueError("Expected at least one example, but the data set is empty.")
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(t, Tensor) for t in data)):
        raise TypeError(
            f"Expected a pair (x, y) of tensors or a map-style torch data set of pairs, but got {_shape_of(data)}."
        )
    x, y = data
    if x.ndim < 1 or y.ndim < 1 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"Expected x and y with one row per example, but got x of shape {tuple(x.shape)} and y of shape "
            f"{tuple(y.shape)}."
        )
    if x.shape[0] == 0:
        raise ValueError("Expected at least one example, but x and y are empty.")
    return x, y


def _shape_of(data: Any) -> str:
    if isinstance(data, tuple | list):
        return f"{type(data).__name__} of {[type(item).__name__ for item in data]}"
    return type(data).__name__


class Batches:
    """Minibatches without replacement, for one or several chains at once.

    Args:
        data: See `Data`. A list of pairs gives each chain its own data set (all of the same shapes).
        num_chains: Number of chains.
        batch_size: Examples in a minibatch, or ``None`` for all of them in each step.
        device: Where the data are kept.

    Raises:
        TypeError: If ``data`` is of another kind.
        ValueError: If data sets of different chains differ in shape, or sizes do not fit.
    """

    def __init__(self, data: Any, *, num_chains: int, batch_size: int | None, device: torch.device) -> None:
        if isinstance(data, list) and data and isinstance(data[0], tuple | list | Dataset):
            pairs = [as_tensors(item) for item in data]
            if len(pairs) != num_chains:
                raise ValueError(f"Expected one data set for each of {num_chains} chains, but got {len(pairs)}.")
            shapes = {(tuple(x.shape), tuple(y.shape)) for x, y in pairs}
            if len(shapes) > 1:
                raise ValueError(
                    f"Expected data sets of the same shapes in all chains, but got {sorted(shapes)}. "
                    "Fit data sets of different sizes one by one."
                )
            self.x = torch.stack([x for x, _ in pairs]).to(device)
            self.y = torch.stack([y for _, y in pairs]).to(device)
            self.per_chain = True
        else:
            x, y = as_tensors(data)
            self.x, self.y = x.to(device), y.to(device)
            self.per_chain = False
        self.num_chains = num_chains
        self.num_data = self.x.shape[1] if self.per_chain else self.x.shape[0]
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Expected batch_size >= 1 or None for all examples, but got {batch_size}.")
        self.batch_size = self.num_data if batch_size is None else min(batch_size, self.num_data)
        self._position = 0
        self._order = torch.empty((num_chains, 0), dtype=torch.long, device=device)

    @property
    def steps_per_epoch(self) -> int:
        """Number of minibatches in one pass over the data; the last one may be smaller."""
        return -(-self.num_data // self.batch_size)

    def first(self) -> tuple[Tensor, Tensor]:
        """Return the first rows of the first chain's data, for checks."""
        x, y = (self.x[0], self.y[0]) if self.per_chain else (self.x, self.y)
        return x[: self.batch_size], y[: self.batch_size]

    def next(self) -> tuple[Tensor, Tensor, bool]:
        """Return the next minibatch.

        Returns:
            ``x``, ``y`` and whether they have a leading chain dimension. With all examples in each step there is
            none where the chains share their data.
        """
        if self.batch_size == self.num_data:
            return self.x, self.y, self.per_chain
        if self._position >= self._order.shape[1]:
            orders = [torch.randperm(self.num_data, device=self.x.device) for _ in range(self.num_chains)]
            self._order, self._position = torch.stack(orders), 0
        index = self._order[:, self._position : self._position + self.batch_size]
        self._position += self.batch_size
        if not self.per_chain:
            if self.num_chains == 1:
                return self.x[index[0]], self.y[index[0]], False
            return self.x[index], self.y[index], True
        rows = torch.arange(self.num_chains, device=index.device).unsqueeze(1)
        return self.x[rows, index], self.y[rows, index], True

    def state(self) -> dict[str, Tensor]:
        """Return the position in the present epoch, so that an interrupted run sees the same minibatches."""
        return {"order": self._order.clone(), "position": torch.tensor(self._position)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._order = state["order"].to(self._order.device)
        self._position = int(state["position"])
