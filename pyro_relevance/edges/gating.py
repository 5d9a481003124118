"""Gates multiplied into weights over many draws at once, and weights summed back to edges.

`Edges.fold` does the same for one draw inside a training step; here whole blocks of draws pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro_relevance.edges.find import EdgeGroup, Edges, Slot

__all__ = ["distinct_product", "gated_blocks", "sum_over_consumers"]

_BLOCK = 2**24


def gated_blocks(
    gates: Mapping[str, Tensor], weights: Mapping[str, Tensor], edges: Edges
) -> Iterator[dict[str, Tensor]]:
    """Consumer weights with all their gates multiplied in, a block of draws at a time.

    Args:
        gates: Group name -> ``(chain, draw, *group.shape)`` gates.
        weights: Parameter name -> ``(chain, draw or 1, *shape)`` weights before gating.
        edges: The judged edges.

    Yields:
        Parameter name -> ``(chain, block of draws, *shape)``, about 2**24 numbers for the largest
        parameter.

    Raises:
        ValueError: Where a group or consumer is missing or has another shape.
    """
    touching = _touching(edges)
    _check(gates, weights, edges)
    num_chains, num_draws = next(iter(gates.values())).shape[:2]
    largest = num_chains * max(math.prod(edges.shapes[tensor]) for tensor in touching)
    step = max(1, _BLOCK // max(1, largest))
    for start in range(0, num_draws, step):
        block = slice(start, start + step)
        gated: dict[str, Tensor] = {}
        for tensor, pairs in touching.items():
            weight = weights[tensor]
            weight = weight if weight.shape[1] == 1 else weight[:, block]
            weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
            for group, slot in pairs:
                gate = _along(gates[group.name][:, block], slot, group, edges.shapes[tensor])
                weight = weight * gate.to(weight.dtype)
            gated[tensor] = weight
        yield gated


def sum_over_consumers(values: Mapping[str, Tensor], group: EdgeGroup, leading: int) -> Tensor:
    """Sum of the entries that read each edge.

    Args:
        values: Parameter name -> ``(*leading, *shape)``.
        group: The edges.
        leading: Number of leading dimensions.

    Returns:
        ``(*leading, *group.shape)``.
    """
    return torch.stack(
        [_per_edge(values[slot.tensor], slot, group, leading) for slot in group.consumers]
    ).sum(0)


def distinct_product(probability: Tensor, slots: Sequence[Slot], shape: Sequence[int]) -> Tensor:
    """Probability that all gates of one group on each entry of a tensor are on.

    Each distinct gate counts once: tied gates can meet one entry twice (row i and column i of a
    residual convolution), and gate * gate is gate.

    Args:
        probability: ``(leading, *group.shape)`` probabilities of independent gates.
        slots: Where the group touches the tensor.
        shape: Shape of the tensor.

    Returns:
        ``(leading, *shape)``, or broadcastable to it.
    """
    flat = torch.nn.functional.pad(probability.flatten(1), (0, 1), value=1.0)
    none = flat.shape[1] - 1
    product = torch.ones((1,) * (len(shape) + 1), dtype=flat.dtype, device=flat.device)
    seen: list[Tensor] = []
    for slot in slots:
        index = _gate_index(slot, none, shape, flat.device)
        factor = flat[:, index]
        for earlier in seen:
            factor = torch.where(index == earlier, 1.0, factor)
        product = product * factor
        seen.append(index)
    return product


def _touching(edges: Edges) -> dict[str, list[tuple[EdgeGroup, Slot]]]:
    touching: dict[str, list[tuple[EdgeGroup, Slot]]] = {}
    for group in edges.groups:
        for slot in group.consumers:
            touching.setdefault(slot.tensor, []).append((group, slot))
    return touching


def _check(gates: Mapping[str, Tensor], weights: Mapping[str, Tensor], edges: Edges) -> None:
    wanted = [("gates", group.name, tuple(group.shape), gates) for group in edges.groups]
    wanted += [("weights", t, tuple(edges.shapes[t]), weights) for t in _touching(edges)]
    for kind, name, shape, given in wanted:
        value = given.get(name)
        if value is None or tuple(value.shape[2:]) != shape:
            got = "nothing" if value is None else str(tuple(value.shape))
            raise ValueError(
                f"Expected draws.{kind}[{name!r}] of shape "
                f"({', '.join(('chain', 'draw', *map(str, shape)))}), but got {got}. Pass "
                "Posterior.sample(...) of the same edges."
            )


def _gate_index(slot: Slot, none: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """Gate of each entry of a tensor of `shape`, broadcastable to it; `none` where no gate."""
    if slot.dim is None:
        return torch.arange(math.prod(shape), device=device).reshape(tuple(shape))
    if slot.index is None:
        index = torch.arange(shape[slot.dim], device=device)
    else:
        index = torch.tensor(slot.index, device=device)
    index = torch.where(index < 0, none, index)
    return index.reshape((1,) * slot.dim + (-1,) + (1,) * (len(shape) - slot.dim - 1))


def _along(gates: Tensor, slot: Slot, group: EdgeGroup, shape: Sequence[int]) -> Tensor:
    leading = gates.shape[: gates.dim() - len(group.shape)]
    flat = gates.reshape(*leading, group.num_edges)
    if slot.dim is None:
        return flat.reshape(*leading, *shape)
    if slot.index is not None:
        flat = torch.nn.functional.pad(flat, (0, 1), value=1.0)
        flat = flat[..., _gate_index(slot, group.num_edges, shape, gates.device).reshape(-1)]
    view = [1] * len(shape)
    view[slot.dim] = flat.shape[-1]
    return flat.reshape(*leading, *view)


def _per_edge(values: Tensor, slot: Slot, group: EdgeGroup, leading: int) -> Tensor:
    if slot.dim is None:
        return values
    kept = leading + slot.dim
    others = [dim for dim in range(leading, values.dim()) if dim != kept]
    sums = values.sum(dim=others) if others else values
    if slot.index is not None:
        shape = (1,) * slot.dim + tuple(sums.shape[-1:])
        index = _gate_index(slot, group.num_edges, shape, values.device).reshape(-1)
        total = sums.new_zeros(*sums.shape[:-1], group.num_edges + 1)
        sums = total.index_add(-1, index, sums)[..., :-1]
    return sums.reshape(*sums.shape[:-1], *group.shape)
