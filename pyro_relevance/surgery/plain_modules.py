"""Plain modules that a pruned network may need: a selection of columns, and a constant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Constant", "SelectFeatures"]


class SelectFeatures(nn.Module):
    """Columns ``index`` of the last axis, for a layer that reads only these.

    Args:
        index: The selected columns, in this order.
    """

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(list(index), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., num_columns)`` to ``(..., len(index))``."""
        return x.index_select(-1, self.index)

    def extra_repr(self) -> str:
        """Number of columns, for printing."""
        return f"num_features={len(self.index)}"


class Constant(nn.Module):
    """The same value for every example: a network that reads none of its inputs.

    Args:
        value: ``(*output_shape)`` output for one example.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Map ``(num_data, ...)`` to ``(num_data, *output_shape)``."""
        return self.value.expand(x.shape[0], *self.value.shape)

    def extra_repr(self) -> str:
        """Shape of the output, for printing."""
        return f"shape={tuple(self.value.shape)}"
