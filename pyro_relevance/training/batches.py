"""Training data on the device, and the stream of minibatches that each chain sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_relevance.model.inputs import as_targets
from pyro_relevance.training.distributed.ranks import Ranks

__all__ = ["Batches", "Data", "as_tensors", "whole_epochs"]

Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any] | Sequence[tuple[Tensor, Tensor]]"
"""One pair ``(x, y)``, a map-style data set of such pairs, or a list of pairs, one per chain."""


def as_tensors(data: Any) -> tuple[Tensor, Tensor]:
    """Return one data set as a pair of tensors ``x: (num_data, ...)`` and ``y: (num_data, ...)``.

    Args:
        data: A pair of tensors, or a map-style ``torch`` data set of pairs.

    Raises:
        TypeError: If ``data`` is neither.
        ValueError: If it is empty, or ``x`` and ``y`` differ in length.
    """
    if isinstance(data, DataLoader):
        raise TypeError(
            "Expected tensors or a data set, but got a DataLoader. Pass loader.dataset and "
            "batch_size: the data are kept on the device, which is faster and makes a run "
            "repeatable."
        )
    if isinstance(data, TensorDataset):
        data = data.tensors
    elif isinstance(data, Dataset):
        data = _stacked(data)
    if not (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(item, Tensor) for item in data)
    ):
        raise TypeError(
            "Expected a pair (x, y) of tensors or a map-style torch data set of pairs, but got "
            f"{_kind(data)}. Convert arrays with torch.as_tensor."
        )
    x, y = data
    if x.ndim < 1 or y.ndim < 1 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"Expected x and y with one row per example, but got x of shape {tuple(x.shape)} and "
            f"y of shape {tuple(y.shape)}. Pass as many targets as inputs."
        )
    if x.shape[0] == 0:
        raise ValueError("Expected at least one example, but x and y are empty. Pass more rows.")
    # A tensor of inference mode has no gradients with respect to anything.
    x, y = (item.clone() if item.is_inference() else item.detach() for item in (x, y))
    return x, as_targets(y)


def whole_epochs(
    data: tuple[Tensor, Tensor], num_epochs: float
) -> tuple[tuple[Tensor, Tensor], int]:
    """Turn any number of epochs into data and a whole number of epochs over them.

    Less than one epoch is one epoch over that share of the examples, evenly spaced (examples may
    be sorted by class). More than one is rounded.

    Args:
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        num_epochs: Number of epochs, not necessarily whole; 0 for none.

    Raises:
        ValueError: If ``num_epochs`` is negative.
    """
    if not num_epochs >= 0:
        raise ValueError(f"Expected a number of epochs >= 0, but got {num_epochs}.")
    if num_epochs >= 1 or num_epochs == 0:
        return data, round(num_epochs)
    x, y = data
    rows = torch.arange(max(1, round(num_epochs * len(x))), device=x.device)
    rows = (rows * (len(x) / len(rows))).long()
    return (x[rows], y[rows]), 1


def check_batch_size(batch_size: int | None) -> None:
    """Check the number of examples in a step.

    Args:
        batch_size: The number, or ``None`` for all examples.

    Raises:
        ValueError: If it is something else.
    """
    if batch_size is not None and (
        isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
    ):
        raise ValueError(
            "Expected batch_size to be a positive integer, or None for all examples, but got "
            f"{batch_size!r}."
        )


def _stacked(data: Any) -> tuple[Tensor, Tensor]:
    if not hasattr(data, "__len__"):
        raise TypeError(
            "Expected a map-style data set with a length, but got an iterable one. Collect it "
            "into tensors first."
        )
    items = [data[index] for index in range(len(data))]
    if not items:
        raise ValueError("Expected at least one example, but the data set is empty. Pass more.")
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise TypeError(
            f"Expected a data set of pairs (x, y), but its first item is {_kind(items[0])}. "
            "Pass the two parts as tensors."
        )
    try:
        x, y = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Expected a data set of numbers of one shape, but got {_kind(items[0])}: {error}. "
            "Give the data set a transform to tensors of one size."
        ) from error
    return x, y


def _kind(data: Any) -> str:
    if isinstance(data, tuple | list):
        return f"{type(data).__name__} of {[type(item).__name__ for item in data[:4]]}"
    return type(data).__name__


class Batches:
    """Minibatches without replacement, for one or several chains at once.

    Args:
        data: See `Data`. A list of pairs gives each chain its own data set (all of the same
            shapes).
        num_chains: Number of chains.
        batch_size: Examples in a minibatch, or ``None`` for all of them in each step.
        device: Where the data are kept.
        augment: Changes the inputs of each minibatch, ``(num_examples, ...)`` of all chains
            together, and keeps their shape; ``None`` for no change.
        ranks: The processes that share the examples, and those of each minibatch.

    Attributes:
        num_given: Examples of all processes together.

    Raises:
        TypeError: If ``data`` is of another kind.
        ValueError: If data sets of different chains differ in shape, or sizes do not fit.
    """

    def __init__(
        self,
        data: Any,
        *,
        num_chains: int,
        batch_size: int | None,
        device: torch.device,
        augment: Callable[[Tensor], Tensor] | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008 (a frozen value)
    ) -> None:
        check_batch_size(batch_size)
        batch_size = ranks.share_of_batch(batch_size)
        self.per_chain = (
            isinstance(data, list) and bool(data) and isinstance(data[0], tuple | list | Dataset)
        )
        if self.per_chain:
            x, y = _stacked_chains([as_tensors(item) for item in data], num_chains)
        else:
            x, y = as_tensors(data)
        axis = int(self.per_chain)
        self.num_given = x.shape[axis]
        if ranks.number > 1:
            rows = ranks.rows(self.num_given)
            x, y = (part.index_select(axis, rows.to(part.device)) for part in (x, y))
        self.x, self.y = x.to(device), y.to(device)
        self.num_chains = num_chains
        self.augment = augment
        self.num_data = self.x.shape[axis]
        self.batch_size = self.num_data if batch_size is None else min(batch_size, self.num_data)
        self._position = 0
        self._order = torch.empty((num_chains, 0), dtype=torch.long, device=device)
        self._rows = torch.arange(num_chains, device=device).unsqueeze(1)

    @property
    def steps_per_epoch(self) -> int:
        """Number of minibatches in one epoch; the last one may be smaller."""
        return -(-self.num_data // self.batch_size)

    def of_chain(self, index: int) -> tuple[Tensor, Tensor]:
        """Return all examples of one chain, ``(num_data, ...)`` each."""
        return (self.x[index], self.y[index]) if self.per_chain else (self.x, self.y)

    def next(self) -> tuple[Tensor, Tensor, bool]:
        """Return the next minibatch.

        Returns:
            ``x``, ``y`` and whether they have a leading chain dimension. With all examples in each
            step there is none where the chains share their data.

        Raises:
            ValueError: If ``augment`` changes the shape or the type of the inputs.
        """
        x, y, per_chain = self._next()
        return self._augmented(x, per_chain), y, per_chain

    def _next(self) -> tuple[Tensor, Tensor, bool]:
        if self.batch_size == self.num_data:
            return self.x, self.y, self.per_chain
        if self._position >= self._order.shape[1]:
            orders = [
                torch.randperm(self.num_data, device=self.x.device) for _ in range(self.num_chains)
            ]
            self._order, self._position = torch.stack(orders), 0
        end = self._position + self.batch_size
        index = self._order[:, self._position : end]
        self._position = end
        if self.per_chain:
            return self.x[self._rows, index], self.y[self._rows, index], True
        if self.num_chains == 1:
            only = index[0]
            return self.x.index_select(0, only), self.y.index_select(0, only), False
        return self.x[index], self.y[index], True

    def _augmented(self, x: Tensor, per_chain: bool) -> Tensor:
        if self.augment is None:
            return x
        flat = x.flatten(0, 1) if per_chain else x
        changed = self.augment(flat)
        if changed.shape != flat.shape or changed.dtype != flat.dtype:
            raise ValueError(
                f"Expected augment to keep the shape {tuple(flat.shape)} and type {flat.dtype} of "
                f"a minibatch, but got {tuple(changed.shape)} and {changed.dtype}. Change values "
                "only."
            )
        return changed.reshape(x.shape) if per_chain else changed

    def state(self) -> dict[str, Tensor]:
        """Return the position in the epoch, so that a resumed run sees the same minibatches.

        The tensors are not changed later: the next epoch has an order of its own.
        """
        return {"order": self._order, "position": torch.tensor(self._position)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: If it is the state of other data.
        """
        order, position = state["order"], state["position"]
        shapes = [(self.num_chains, 0), (self.num_chains, self.num_data)]
        if order.dtype is not torch.long or tuple(order.shape) not in shapes:
            raise ValueError(
                f"Expected an order of {self.num_data} examples for {self.num_chains} chains, but "
                f"got {order.dtype} of shape {tuple(order.shape)}."
            )
        rows = torch.arange(order.shape[1], device=order.device).expand_as(order)
        if not torch.equal(order.sort(dim=1).values, rows):
            raise ValueError("Expected each example once in the order of an epoch.")
        if position.ndim or position.dtype is not torch.long:
            raise ValueError(f"Expected a position in an epoch, but got {position}.")
        # The last minibatch may be smaller: the position is then beyond the examples.
        if not 0 <= int(position) < self.num_data + self.batch_size:
            raise ValueError(f"Expected a position in an epoch, but got {int(position)}.")
        self._order, self._position = order.to(self.x.device, copy=True), int(position)


def _stacked_chains(
    pairs: Sequence[tuple[Tensor, Tensor]], num_chains: int
) -> tuple[Tensor, Tensor]:
    if len(pairs) != num_chains:
        raise ValueError(
            f"Expected one data set for each of {num_chains} chains, but got {len(pairs)}. Pass "
            f"num_chains={len(pairs)}."
        )
    shapes = {(tuple(x.shape), tuple(y.shape)) for x, y in pairs}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected data sets of the same shapes in all chains, but got {sorted(shapes)}. "
            "Fit data sets of different sizes one by one."
        )
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
