"""From a relaxed graph and an architecture to the plain network that computes the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.modules import evaluating, example_arguments, reinitialise
from pyro_relevance.edges.size import Cost, count_cost
from pyro_relevance.graphs.architectures import Architecture, choose, operations_of
from pyro_relevance.graphs.derived import derived_graph
from pyro_relevance.graphs.graph import Graph
from pyro_relevance.surgery.equivalence import largest_difference
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import Receipt

__all__ = ["architecture_cost", "derive", "derived_mask", "reinitialised_network", "hard_gated"]

Weights = Literal["inherited", "fresh"]


def hard_gated(network: nn.Module, architecture: Architecture) -> nn.Module:
    """Return a copy of a relaxed network whose gates are those of an architecture.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.

    Raises:
        ArchitectureError: If the architecture does not fit the network.
    """
    network = copy.deepcopy(network)
    choose(network, architecture)
    return network


def derive(
    network: nn.Module,
    architecture: Architecture,
    *,
    example_input: Tensor | tuple[Tensor, ...],
    weights: Weights = "inherited",
) -> PrunedNetwork:
    """Write down the plain network of an architecture: one operation for each edge, no gates.

    Edges that are ``none`` are removed, and all edges that no path from input to output uses.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs: for the comparison,
            and the batch at which latency is measured.
        weights: ``"inherited"``: those of the relaxed network; the result is compared with the
            relaxed network at hard gates. ``"fresh"``: re-initialised weights (drawn from torch's
            global generator) and normalisation layers of their own, to be trained.

    Returns:
        The plain network with a receipt. Its ``max_difference`` is that to the hard-gated graph;
        NaN for re-initialised weights, where there is nothing to compare.

    Raises:
        ArchitectureError: If the architecture does not fit the network or leaves no path.
        SurgeryError: If the result differs from the hard-gated graph.
        ValueError: If ``weights`` is unknown, or a layer cannot be re-initialised.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"Expected weights from {list(get_args(Weights))}, but got {weights!r}.")
    arguments = example_arguments(example_input)
    gated, difference = hard_gated(network, architecture), float("nan")
    if weights == "fresh":
        small, notes = _reinitialised(gated, architecture, arguments)
    else:
        small, _, notes = _derived(gated, architecture, arguments, reinitialised=False)
        difference = largest_difference(gated, small, arguments)
    receipt = Receipt.measured(
        network, small, example_input, max_difference=difference, notes=notes
    )
    return PrunedNetwork(small, receipt)


def reinitialised_network(
    network: nn.Module, architecture: Architecture, example_input: Tensor | tuple[Tensor, ...]
) -> nn.Module:
    """Return the plain network of an architecture, re-initialised: `derive` without a receipt.

    Nothing is counted or timed. Use it for short trainings of many architectures.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.

    Raises:
        ArchitectureError: If the architecture does not fit the network or leaves no path.
        ValueError: If a layer cannot be re-initialised.
    """
    arguments = example_arguments(example_input)
    return _reinitialised(hard_gated(network, architecture), architecture, arguments)[0]


def _reinitialised(
    gated: nn.Module, architecture: Architecture, arguments: tuple[Tensor, ...]
) -> tuple[nn.Module, list[str]]:
    small, graphs, notes = _derived(gated, architecture, arguments, reinitialised=True)
    _reset(small, graphs)
    return small, notes


def _derived(
    gated: nn.Module,
    architecture: Architecture,
    arguments: tuple[Tensor, ...],
    *,
    reinitialised: bool,
) -> tuple[nn.Module, list[nn.Module], list[str]]:
    """Return a copy of a hard-gated network with plain graphs, these graphs, and notes."""
    sizes = _node_sizes(gated, arguments)
    small = copy.deepcopy(gated)
    notes: list[str] = []
    graphs: list[nn.Module] = []
    for name, graph in list(small.named_modules()):
        if not isinstance(graph, Graph):
            continue
        chosen = operations_of(graph, architecture)
        made, gone = derived_graph(graph, chosen, sizes=sizes[name], reinitialised=reinitialised)
        notes += [note for note in gone if note not in notes]
        made.train(graph.training)
        graphs.append(made)
        if not name:
            small = made
        else:
            parent, _, key = name.rpartition(".")
            setattr(small.get_submodule(parent), key, made)
    like = next(gated.parameters())
    return small.to(like.device, like.dtype), graphs, notes


def architecture_cost(
    network: nn.Module,
    architecture: Architecture,
    example_input: Tensor | tuple[Tensor, ...],
) -> Cost:
    """Return what the plain network of an architecture costs, without timing it.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.

    Raises:
        ArchitectureError: If the architecture does not fit the network or leaves no path.
    """
    arguments = example_arguments(example_input)
    gated = hard_gated(network, architecture)
    small, _, _ = _derived(gated, architecture, arguments, reinitialised=False)
    return count_cost(small, example_input)


def _node_sizes(
    network: nn.Module, arguments: tuple[Tensor, ...]
) -> dict[str, Mapping[str, torch.Size]]:
    """Size of the representation at each node of each graph, by the name of the graph."""
    sizes: dict[str, Mapping[str, torch.Size]] = {}

    def note(name: str, graph: Graph, inputs: tuple[Tensor, ...]) -> None:
        sizes[name] = {node: value.shape for node, value in graph.node_values(*inputs).items()}

    handles = [
        module.register_forward_pre_hook(lambda graph, inputs, name=name: note(name, graph, inputs))
        for name, module in network.named_modules()
        if isinstance(module, Graph)
    ]
    try:
        with evaluating(network), torch.no_grad():
            network(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _reset(network: nn.Module, graphs: list[nn.Module]) -> None:
    """Re-initialise all weights. A layer of a graph that has no way to do so is new already."""
    made = {id(module) for graph in graphs for module in graph.modules()}
    for name, module in reinitialise(network):
        if id(module) not in made:
            raise ValueError(
                f"Expected layers that can be re-initialised, but {name or 'the network'} "
                f"({type(module).__name__}) has parameters and no method reset_parameters(). Give "
                "it one, or make the network again and derive with weights='inherited'."
            )


def derived_mask(
    edges: Edges, mask: Mapping[str, Tensor], architecture: Architecture, derived: Edges
) -> dict[str, Tensor]:
    """Carry a mask of units over from a relaxed network to the plain one that is derived from it.

    An operation that was not chosen may tie units of the relaxed network. Without it they are
    separate units, and each of them keeps what the mask decided for all of them.

    Args:
        edges: Edges of the relaxed network.
        mask: For each group of ``edges``, booleans of ``group.shape``, True = kept.
        architecture: The choice of operations.
        derived: Edges of the derived network, found in it with the same granularities.

    Returns:
        For each group of ``derived``, booleans of ``group.shape``. What is not gated is kept.
    """
    fate: dict[tuple[str, int | None], Tensor] = {}
    for group in edges:
        kept = mask[group.name].cpu().reshape(-1) != 0
        for slot in (*group.producers, *group.consumers):
            key, flags = (slot.tensor, slot.dim), slot.spread(kept, True)
            fate[key] = fate[key] & flags if key in fate else flags
    originals = _original_names(edges, architecture)
    result = {}
    for group in derived:
        removed = torch.zeros(group.num_edges, dtype=torch.int64)
        for slot in (*group.producers, *group.consumers):
            key = (_original(slot.tensor, originals), slot.dim)
            if key in fate:
                removed += slot.total((~fate[key]).to(torch.int64), group.num_edges)
        result[group.name] = (removed == 0).reshape(group.shape)
    return result


def _original_names(edges: Edges, architecture: Architecture) -> dict[str, str]:
    """Prefix of the tensors of each chosen operation: in the derived network -> in the relaxed."""
    names = {}
    for group in edges.operations:
        for slot in group.consumers:
            prefix = slot.tensor.removesuffix("gate")
            names[prefix] = f"{prefix}operations.{architecture.operations[group.name]}."
    return names


def _original(tensor: str, originals: Mapping[str, str]) -> str:
    for derived, relaxed in originals.items():
        if tensor.startswith(derived):
            return relaxed + tensor.removeprefix(derived)
    return tensor
