"""What each candidate operation costs at its position in a network."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from pyro_relevance.edges.modules import evaluating, example_arguments
from pyro_relevance.edges.size import num_macs
from pyro_relevance.graphs.graph import Graph, MixedOperation

__all__ = ["operation_macs"]


def operation_macs(
    network: nn.Module, example_input: Tensor | tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """Return the multiply-accumulates of each candidate of each edge, for one example.

    The choice is made once for all graphs that share a structure, so their counts are added. A
    prior by cost is ``CategoricalPrior({group: -nats * macs for group, macs in
    graphs.operation_macs(network, x).items()})``.

    Args:
        network: The network with relaxed graphs; it is not changed.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.

    Returns:
        Group -> ``(num_operations,)``.
    """
    arguments = example_arguments(example_input)
    inputs: list[tuple[str, MixedOperation, Tensor]] = []

    def keep(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, MixedOperation)
        inputs.append((name, module, given[0]))

    handles = []
    for graph in network.modules():
        if isinstance(graph, Graph):
            for name, module in graph.choices():
                handles.append(module.register_forward_pre_hook(partial(keep, name)))
    try:
        with evaluating(network), torch.no_grad():
            network(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    counts: dict[str, Tensor] = {}
    for name, module, x in inputs:
        macs = [float(num_macs(operation, x[:1])) for operation in module.operations.values()]
        counts[name] = counts.get(name, torch.zeros(len(macs))) + torch.tensor(macs)
    return counts
