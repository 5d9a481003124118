"""Sums of squares of many parameters at little cost in a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["sum_of_squares"]

LARGE = 2**14
"""Number of entries from which a copy of the parameters costs more than Python does."""


def sum_of_squares(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of the squares of all entries, a scalar.

    Args:
        tensors: At least one tensor of any shape, all of one type.
    """
    if sum(tensor.numel() for tensor in tensors) >= LARGE:
        total: Tensor = _SumOfSquares.apply(*tensors)
        return total
    flat = [tensor.reshape(-1) for tensor in tensors]
    vector = flat[0] if len(flat) == 1 else torch.cat(flat)
    return torch.dot(vector, vector)


class _SumOfSquares(torch.autograd.Function):
    """The same without a copy and with one multiplication per tensor in the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*tensors: Tensor) -> Tensor:
        flat = [tensor.reshape(-1) for tensor in tensors]
        return torch.stack([torch.dot(vector, vector) for vector in flat]).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        twice = 2.0 * grad
        return tuple(tensor * twice for tensor in ctx.saved_tensors)
