"""Operations of relaxed graphs as ArviZ variables over ``source, target, operation``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pyro_relevance.graphs.architectures import structures
from pyro_relevance.graphs.graph import MixedOperation, edge_key

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.edges.find import Edges
    from pyro_relevance.posterior.draws import Draws

__all__ = ["describe_graphs", "operation_variables"]

_DIMS = ("chain", "draw", "source", "target", "operation")


def operation_variables(edges: Edges, draws: Draws) -> xr.Dataset:
    """Return hard gates and probabilities of the operations of each structure.

    Args:
        edges: The gated edges.
        draws: Draws of them.

    Returns:
        ``<structure>_operation_gate`` (0 or 1) and ``<structure>_operation_probability`` over
        ``(chain, draw, source, target, operation)``; NaN where there is no such edge or operation.
    """
    import xarray as xr

    names_of_edges = [tuple(group.name.split(".")) for group in edges.operations]
    sources = list(dict.fromkeys(source for _, source, _ in names_of_edges))
    targets = list(dict.fromkeys(target for _, _, target in names_of_edges))
    names = list(dict.fromkeys(label for group in edges.operations for label in group.labels))
    variables: dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]] = {}
    parts: tuple[tuple[str, Mapping[str, Tensor]], ...] = (
        ("gate", draws.operations),
        ("probability", draws.operation_probability),
    )
    shape = next(iter(draws.operations.values())).shape[:2]
    for quantity, values in parts:
        for (structure, source, target), group in zip(
            names_of_edges, edges.operations, strict=True
        ):
            name = f"{structure}_operation_{quantity}"
            if name not in variables:
                empty = np.full((*shape, len(sources), len(targets), len(names)), np.nan)
                variables[name] = (_DIMS, empty.astype(np.float32))
            columns = [names.index(label) for label in group.labels]
            row, column = sources.index(source), targets.index(target)
            variables[name][1][:, :, row, column, columns] = values[group.name].cpu().numpy()
    coords = {
        "chain": np.arange(shape[0]),
        "draw": np.arange(shape[1]),
        "source": sources,
        "target": targets,
        "operation": names,
    }
    return xr.Dataset(variables, coords=coords)


def describe_graphs(network: nn.Module) -> str:
    """Return nodes and edges of each structure as JSON; edges with their operation if only one.

    Args:
        network: The network with relaxed graphs.
    """
    described = {}
    for name, graph in structures(network).items():
        edges = [
            [
                edge.source,
                edge.target,
                None if isinstance(graph.edges[edge_key(edge)], MixedOperation) else edge.names[0],
            ]
            for edge in graph.order
        ]
        described[name] = {"nodes": list(graph.nodes), "edges": edges}
    return json.dumps(described)
