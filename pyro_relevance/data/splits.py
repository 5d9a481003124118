"""Examples in two parts: those that a method learns from, and those that it holds out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Examples", "split_examples"]

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
            f"Expected examples of which {held_out:.0%} are at least one and not all, but got "
            f"{len(x)} inputs and {len(y)} targets."
        )
    if generator is None:
        order = torch.randperm(len(x), device=x.device)
    else:
        order = torch.randperm(len(x), generator=generator).to(x.device)
    kept, held = order[number:], order[:number]
    return (x[kept], y[kept]), (x[held], y[held])
