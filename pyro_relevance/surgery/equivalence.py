"""Whether a pruned network is the same function as the masked one, to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_relevance.edges.modules import evaluating
from pyro_relevance.errors import SurgeryError

__all__ = ["LOW_PRECISION_TOLERANCE", "TOLERANCES", "largest_difference", "relative_difference"]

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
            expected = tree_leaves(masked(*trial))
            try:
                found = tree_leaves(small(*trial))
            except (RuntimeError, IndexError, TypeError) as error:
                raise SurgeryError(
                    "Expected the pruned network to run like the masked one, but it failed: "
                    f"{error}. A size may be written into forward()."
                ) from error
            largest = max([largest, *map(relative_difference, expected, found)])
    if not largest <= tolerance:
        raise SurgeryError(
            f"Expected the pruned network to equal the masked one to {tolerance:g} in {dtype}, but "
            f"they differ by {largest:.2e}. Please report the network; pruning it is not exact."
        )
    return largest


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
