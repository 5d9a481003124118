"""Whether a pruned network is the same function as the masked one, to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_relevance.edges.modules import evaluating, first_line
from pyro_relevance.errors import SurgeryError
from pyro_relevance.surgery.steps import SizeError, plain_containers

__all__ = [
    "LOW_PRECISION_TOLERANCE",
    "TOLERANCES",
    "difference_at_sizes",
    "largest_difference",
    "relative_difference",
]

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
LOW_PRECISION_TOLERANCE = 2e-2
_NUM_RANDOM = 3


def largest_difference(masked: nn.Module, small: nn.Module, arguments: tuple[Tensor, ...]) -> float:
    """Largest relative difference on the example and on random inputs of its shape.

    The difference is max|a - b| / max(1, max|a|) over the outputs of one call.

    Args:
        masked: The network with zeros.
        small: The pruned network.
        arguments: ``(num_data, *input_shape)`` inputs.

    Returns:
        Largest difference over all calls.

    Raises:
        SurgeryError: It is larger than rounding errors, or the small network cannot run.
    """
    dtype = next(masked.parameters()).dtype
    tolerance = TOLERANCES.get(dtype, LOW_PRECISION_TOLERANCE)
    generator = torch.Generator().manual_seed(0)
    trials = [arguments]
    if all(argument.is_floating_point() for argument in arguments):
        for _ in range(_NUM_RANDOM):
            noise = (
                torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a)
                for a in arguments
            )
            trials.append(tuple(noise))
    largest = 0.0
    with evaluating(masked, small), torch.no_grad():
        for trial in trials:
            expected = _outputs(masked, trial)
            try:
                found = _outputs(small, trial)
            except SizeError:
                raise
            except Exception as error:  # the code of a user's forward() may raise anything
                raise SurgeryError(
                    "Expected the pruned network to run like the masked one, but it failed: "
                    f"{first_line(error)} A size may be written into forward()."
                ) from error
            same_number = len(expected) == len(found)
            differences = map(relative_difference, expected, found)
            largest = max([largest, *differences]) if same_number else math.inf
    if not largest <= tolerance:
        raise SurgeryError(
            f"Expected the pruned network to equal the masked one to {tolerance:g} in {dtype}, but "
            f"they differ by {largest:.2e}. Please report the network; pruning it is not exact."
        )
    return largest


def difference_at_sizes(
    masked: nn.Module,
    small: nn.Module,
    arguments: tuple[Tensor, ...],
    free: Sequence[Sequence[int]],
) -> tuple[float, list[tuple[tuple[int, ...], ...]]]:
    """Largest relative difference at other numbers of examples and at other sizes.

    Args:
        masked: The network with zeros.
        small: The pruned network.
        arguments: ``(num_data, *input_shape)`` inputs.
        free: For each input, the axes along which its size may change.

    Returns:
        The difference, and the shapes of the inputs that both networks accepted.

    Raises:
        SurgeryError: It is larger than rounding errors, or only the small network cannot run.
    """
    largest, accepted = 0.0, list[tuple[tuple[int, ...], ...]]()
    for change in _CHANGES:
        trial = tuple(
            _resized(argument, axes, change) for argument, axes in zip(arguments, free, strict=True)
        )
        shapes = tuple(tuple(argument.shape) for argument in trial)
        if shapes in accepted or shapes == tuple(tuple(a.shape) for a in arguments):
            continue
        try:
            with evaluating(masked), torch.no_grad():
                _outputs(masked, trial)
        except Exception:  # whatever it raises, the network has no answer at these sizes
            continue
        try:
            largest = max(largest, largest_difference(masked, small, trial))
        except SizeError:
            continue  # refused in words
        accepted.append(shapes)
    return largest, accepted


_CHANGES: tuple[Callable[[int, int], int], ...] = (
    lambda axis, size: size if axis else 1,
    lambda axis, size: size if axis else size + 1,
    lambda axis, size: size + 1 if axis else min(size, 2),
    lambda axis, size: size + size // 2 if axis else min(size, 2),
    lambda axis, size: 2 * size if axis else min(size, 2),
)
"""From an axis and the size in the example to another size."""


def _resized(argument: Tensor, axes: Sequence[int], change: Callable[[int, int], int]) -> Tensor:
    """Repeat or omit entries along some axes."""
    for axis in axes:
        size = argument.shape[axis]
        index = torch.arange(change(axis, size), device=argument.device) % size
        argument = argument.index_select(axis, index)
    return argument


def _outputs(network: nn.Module, arguments: tuple[Tensor, ...]) -> list[Any]:
    """Return the outputs of a call; random numbers in forward() are the same in each call."""
    with torch.random.fork_rng(devices=[a.device for a in arguments if a.is_cuda]):
        torch.manual_seed(0)
        return tree_leaves(plain_containers(network(*arguments)))


def relative_difference(expected: Any, found: Any) -> float:
    """max|a - b| / max(1, max|a|) of two outputs; infinite where they are of another kind or shape.

    Args:
        expected: A tensor (a), or another value that must be equal.
        found: The value that is compared with it (b).
    """
    if not isinstance(expected, Tensor):
        return 0.0 if expected == found else float("inf")
    if expected.shape != found.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    a, b = expected.double(), found.double()
    same = (a == b) | (a.isnan() & b.isnan())
    error = torch.where(same, 0.0, (a - b).abs()).max()
    scale = a.abs().nan_to_num(0.0, posinf=0.0).max().clamp(min=1.0)
    return float(error / scale)
