"""A network as a list of operations, compared with the network before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from torch import Tensor, nn

from pyro_relevance.edges.exported import Sizes
from pyro_relevance.errors import EdgeError, SurgeryError
from pyro_relevance.surgery.equivalence import difference_at_sizes, largest_difference
from pyro_relevance.surgery.rewriting.network import resized_network
from pyro_relevance.surgery.steps import GraphNetwork, SizeError

__all__ = ["as_operations"]


def as_operations(
    masked: nn.Module,
    network: nn.Module,
    arguments: tuple[Tensor, ...],
    kept: Mapping[tuple[str, int], Tensor],
) -> tuple[GraphNetwork, list[str], float]:
    """Write a network down for as many sizes of inputs as it allows.

    Args:
        masked: What the list must compute.
        network: The network that is written down; it is the same function.
        arguments: ``(num_data, *input_shape)`` inputs.
        kept: For (tensor, axis), booleans of the kept positions along the axis.

    Returns:
        The list of operations, notes on the sizes that it serves, and its largest difference from
        the masked network on the example, at other sizes and numbers of examples.

    Raises:
        SurgeryError: It cannot be written down, or is not the same function.
    """
    order: tuple[Sizes, ...] = ("any", "batch", "example")
    assert set(order) == set(get_args(Sizes))
    first: Exception | None = None
    for sizes in order:
        try:
            written, free = resized_network(network, arguments, kept, sizes=sizes)
            difference = largest_difference(masked, written, arguments)
            other, shapes = difference_at_sizes(masked, written, arguments, free)
        except (EdgeError, SurgeryError, SizeError) as error:
            first = first or error
            continue
        return written, _notes(arguments, free, shapes), max(difference, other)
    raise SurgeryError(
        "Expected a network whose forward() runs with the kept sizes or can be rewritten, "
        f"but it failed: {first} A size is written into forward(), or a layer is pruned whole: "
        "take sizes from tensors there, or keep one unit of each layer with on_empty='keep'."
    ) from first


def _notes(
    arguments: tuple[Tensor, ...],
    free: Sequence[Sequence[int]],
    shapes: Sequence[tuple[tuple[int, ...], ...]],
) -> list[str]:
    notes = []
    for position, (argument, axes) in enumerate(zip(arguments, free, strict=True)):
        fixed = [f"axis {d} ({n})" for d, n in enumerate(argument.shape) if d not in axes]
        any_size = ", ".join(map(str, axes)) or "none"
        notes.append(
            f"Input {position}: axes of any size: {any_size}; of the size of the example: "
            f"{', '.join(fixed) or 'none'}."
        )
    compared = "; ".join(", ".join("x".join(map(str, shape)) for shape in s) for s in shapes)
    if compared:
        notes.append(f"Also compared at inputs of shape {compared}.")
    return notes
