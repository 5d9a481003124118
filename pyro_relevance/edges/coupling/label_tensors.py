"""Labels of the positions of a value: integers in a tensor of its shape.

Two labels are special. ``KEPT`` marks positions that are never pruned. ``FILLER`` marks padding,
which is pruned with its neighbours. Most values have the same labels along most axes; such axes
have stride 0 and take no memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FILLER", "KEPT", "compact", "filled", "narrowed", "variable_axes"]

KEPT, FILLER = -1, -2


def filled(shape: tuple[int, ...], value: int) -> Tensor:
    """Return one label everywhere, ``(*shape)``."""
    return torch.full((1,) * len(shape), value).expand(shape)


def narrowed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return one position of each axis along which none of the tensors varies in memory.

    Args:
        tensors: Labels of shapes that broadcast.

    Returns:
        For each, ``(n1, n2, ...)`` labels, with 1 for an axis that is dropped.
    """
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    expanded = [tensor.expand(shape) for tensor in tensors]
    for dim, size in enumerate(shape):
        if size > 1 and all(tensor.stride(dim) == 0 for tensor in expanded):
            expanded = [tensor.narrow(dim, 0, 1) for tensor in expanded]
    return tuple(expanded)


def variable_axes(labels: Tensor) -> set[int]:
    """Return the axes along which labels vary in memory."""
    return {dim for dim, size in enumerate(narrowed(labels)[0].shape) if size > 1}


def compact(labels: Tensor) -> Tensor:
    """Return the same labels with stride 0 along each axis that they do not vary along."""
    shape = labels.shape
    (thin,) = narrowed(labels)
    for dim in range(thin.ndim):
        if thin.shape[dim] > 1 and bool((thin == thin.narrow(dim, 0, 1)).all()):
            thin = thin.narrow(dim, 0, 1)
    return thin.expand(shape)
