"""Networks for tables: depth, activations and shortcuts are chosen, widths by gates of units."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_relevance.graphs.dense import ACTIVATIONS
from pyro_relevance.graphs.graph import Graph, GraphEdge

__all__ = ["mlp_space"]


def mlp_space(
    num_inputs: int,
    num_outputs: int,
    *,
    width: int = 50,
    depth: int = 3,
    activations: Sequence[str] = tuple(ACTIVATIONS),
) -> Graph:
    """Return a relaxed multilayer perceptron.

    Each hidden layer is a linear map and one of the activations. Each hidden layer, and the input
    itself, may be read by the output or not (``none`` or ``linear``): the last one that is read
    says how deep the network is. To choose widths, too, gate the units:
    ``granularity=("operation", "unit")``.

    Args:
        num_inputs: Columns of the table.
        num_outputs: Outputs of the network.
        width: Units of each hidden layer, at most.
        depth: Hidden layers, at most.
        activations: Names of activations among which each hidden layer chooses.

    Raises:
        ValueError: If a number is not positive, or an activation is unknown.
    """
    if depth < 1:
        raise ValueError(f"Expected depth >= 1, but got {depth}.")
    nodes = {"x": num_inputs}
    edges = []
    before = "x"
    for layer in range(1, depth + 1):
        nodes |= {f"a{layer}": width, f"h{layer}": width}
        edges += [
            GraphEdge(before, f"a{layer}", "linear"),
            GraphEdge(f"a{layer}", f"h{layer}", tuple(activations)),
        ]
        before = f"h{layer}"
    nodes["y"] = num_outputs
    readable = ["x", *(f"h{layer}" for layer in range(1, depth + 1))]
    edges += [GraphEdge(node, "y", ("none", "linear")) for node in readable]
    return Graph(nodes, edges, output="y", structure="mlp")
