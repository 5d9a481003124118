"""From a relaxed graph and a choice of operations to the plain network that is left."""

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

__all__ = ["architecture_cost", "derive", "derived_mask", "fresh_network", "hard_gated"]

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

    Edges that are ``none`` are left out, and with them all that no path from input to output uses.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs: for the comparison,
            and the batch at which latency is measured.
        weights: ``"inherited"``: those of the relaxed network; the result is compared with the
            relaxed network at hard gates. ``"fresh"``: all of them anew (drawn from torch's global
            generator), with normalisation layers of their own, to be trained.

    Returns:
        The plain network with a receipt. Its ``max_difference`` is that to the hard-gated graph;
        NaN for fresh weights, where there is nothing to compare.

    Raises:
        ArchitectureError: If the architecture does not fit the network or leaves no path.
        SurgeryError: If the result differs from the hard-gated graph.
        ValueError: If ``weights`` is unknown, or a layer cannot be made anew.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"Expected weights from {list(get_args(Weights))}, but got {weights!r}.")
    arguments = example_arguments(example_input)
    gated, difference = hard_gated(network, architecture), float("nan")
    if weights == "fresh":
        small, notes = _fresh(gated, architecture, arguments)
    else:
        small, _, notes = _written(gated, architecture, arguments, fresh=False)
        difference = largest_difference(gated, small, arguments)
    receipt = Receipt.measured(
        network, small, example_input, max_difference=difference, notes=notes
    )
    return PrunedNetwork(small, receipt)


def fresh_network(
    network: nn.Module, architecture: Architecture, example_input: Tensor | tuple[Tensor, ...]
) -> nn.Module:
    """Return the plain network of an architecture with fresh weights: `derive` without a receipt.

    Nothing is counted or timed: for short trainings of many architectures.

    Args:
        network: The network with relaxed graphs; it is not changed.
        architecture: A choice of operations.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.

    Raises:
        ArchitectureError: If the architecture does not fit the network or leaves no path.
        ValueError: If a layer cannot be made anew.
    """
    arguments = example_arguments(example_input)
    return _fresh(hard_gated(network, architecture), architecture, arguments)[0]


def _fresh(
    gated: nn.Module, architecture: Architecture, arguments: tuple[Tensor, ...]
) -> tuple[nn.Module, list[str]]:
    small, graphs, notes = _written(gated, architecture, arguments, fresh=True)
    _reset(small, graphs)
    return small, notes


def _written(
    gated: nn.Module, architecture: Architecture, arguments: tuple[Tensor, ...], *, fresh: bool
) -> tuple[nn.Module, list[nn.Module], list[str]]:
    """A copy of a hard-gated network with plain graphs for relaxed ones, these, and notes."""
    sizes = _node_sizes(gated, arguments)
    small = copy.deepcopy(gated)
    notes: list[str] = []
    graphs: list[nn.Module] = []
    for name, graph in list(small.named_modules()):
        if not isinstance(graph, Graph):
            continue
        chosen = operations_of(graph, architecture)
        made, gone = derived_graph(graph, chosen, sizes=sizes[name], fresh=fresh)
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
    return count_cost(_written(gated, architecture, arguments, fresh=False)[0], example_input)


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
    """Draw all weights anew; those of graphs are new already, if they cannot be drawn."""
    made = {id(module) for graph in graphs for module in graph.modules()}
    for name, module in reinitialise(network):
        if id(module) not in made:
            raise ValueError(
                f"Expected layers that can be made anew, but {name or 'the network'} "
                f"({type(module).__name__}) has parameters and no method reset_parameters(). Give "
                "it one, or make the network again and derive with weights='inherited'."
            )


def derived_mask(
    edges: Edges, mask: Mapping[str, Tensor], architecture: Architecture, derived: Edges
) -> dict[str, Tensor]:
    """Carry a mask of units over from a relaxed network to the plain one that is derived from it.

    Units that are tied through an operation that was not chosen are free of each other in the
    derived network; they share the fate that the mask gave them together.

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
    places = _original_names(edges, architecture)
    result = {}
    for group in derived:
        removed = torch.zeros(group.num_edges, dtype=torch.int64)
        for slot in (*group.producers, *group.consumers):
            key = (_original(slot.tensor, places), slot.dim)
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


def _original(tensor: str, places: Mapping[str, str]) -> str:
    for derived, relaxed in places.items():
        if tensor.startswith(derived):
            return relaxed + tensor.removeprefix(derived)
    return tensor
