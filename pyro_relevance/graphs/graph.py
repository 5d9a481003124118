"""A relaxed graph: nodes are intermediate representations, edges are mixtures of primitives.

Each edge computes the sum of its candidate operations, each multiplied by its gate. Each node is
the sum of the edges that lead to it. All gates are one at first. `find_edges` finds the gates, a
:class:`~pyro_relevance.RelevanceModel` makes them a latent one-hot variable, and `derive` writes
down the plain network of one architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from pyro_relevance.edges.candidates import OperationCandidates
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.primitives import Place, Zero, applied, make_primitive

__all__ = ["Graph", "GraphEdge", "MixedOperation"]


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge of a graph and what it can be.

    Args:
        source: Name of the node that it reads.
        target: Name of the node that it leads to.
        operations: Names of primitives. An edge with a single one is fixed.
        stride: Factor by which the resolution of an image falls.
    """

    source: str
    target: str
    operations: tuple[str, ...] | str
    stride: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the operations."""
        given = self.operations
        return (given,) if isinstance(given, str) else tuple(given)


class MixedOperation(nn.Module):
    """The sum of candidate operations, each multiplied by its gate.

    Args:
        operations: Name -> operation.

    Attributes:
        gate: ``(num_operations,)`` buffer of ones, which a model multiplies by the gates.
        skip_zeros: Whether operations whose gate is zero are not computed. A single operation then
            costs the memory and the time of one. Each call has to read the gates for it.
        where: The edge in words and its `Place`, to which results are compared; ``None`` outside of
            a graph.
    """

    gate: Tensor

    def __init__(self, operations: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(operations)
        self.register_buffer("gate", torch.ones(len(operations)))
        self.skip_zeros = False
        self.where: tuple[str, Place] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, in the order of the gates."""
        return tuple(self.operations)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated sum, of the shape that the operations make.

        Raises:
            ArchitectureError: If an operation fails, or what it makes does not fit its place.
            ValueError: If all gates are zero and there is no operation ``none``.
        """
        candidates = list(self.operations.values())
        chosen: Iterable[int] = range(len(candidates))
        if self.skip_zeros:
            chosen = self.gate.detach().nonzero()[:, 0].tolist()
        total: Tensor | None = None
        zero: Tensor | None = None
        first: tuple[str, Tensor] | None = None
        for index in chosen:
            made = applied(self.names[index], candidates[index], x, self.where)
            first = _same_shape(first, (self.names[index], made), self.where)
            if isinstance(candidates[index], Zero):
                zero = made
                continue
            made = made * self.gate[index].to(made.dtype)
            total = made if total is None else total + made
        if total is None and zero is None:
            raise ValueError(
                f"Expected a gate of {list(self.operations)} that is not zero, but all of them are."
            )
        return zero if total is None else total  # type: ignore[return-value]


def _same_shape(
    first: tuple[str, Tensor] | None,
    made: tuple[str, Tensor],
    where: tuple[str, Place] | None,
) -> tuple[str, Tensor]:
    """Return the first result of an edge, after a check that another one has its shape."""
    if first is None or where is None or isinstance(made[1], fx.Proxy):
        return first or made
    if made[1].shape != first[1].shape:
        raise ArchitectureError(
            f"Expected all primitives on edge {where[0]} to make tensors of one shape, but "
            f"{first[0]!r} makes {tuple(first[1].shape)} and {made[0]!r} makes "
            f"{tuple(made[1].shape)}."
        )
    return first


class Graph(nn.Module):
    """A directed acyclic graph of mixed operations.

    Args:
        nodes: Name of each node -> its number of features (or channels); edges lead from earlier
            to later nodes.
        edges: The edges.
        output: Node that the graph returns, or nodes that are concatenated along ``dim``.
        dim: Dimension of features or channels, along which outputs are concatenated.
        structure: Graphs with the same name share one choice of operations (the cells of a
            network), with weights of their own.
        affine: See :class:`Place`.
        statistics: See :class:`Place`.

    Raises:
        ValueError: If an edge or an output does not fit the nodes, an edge is given twice or leads
            backwards, or a primitive does not fit its position.

    Example:
        >>> graph = Graph(
        ...     {"x": 3, "h": 8, "y": 1},
        ...     [
        ...         GraphEdge("x", "h", ("linear_relu", "linear_tanh")),
        ...         GraphEdge("h", "y", "linear"),
        ...         GraphEdge("x", "y", ("none", "linear")),
        ...     ],
        ...     output="y",
        ... )
        >>> graph(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        nodes: Mapping[str, int],
        edges: Iterable[GraphEdge],
        *,
        output: str | Sequence[str],
        dim: int = 1,
        structure: str = "graph",
        affine: bool = True,
        statistics: bool = True,
    ) -> None:
        super().__init__()
        self.nodes = dict(nodes)
        self.connections = tuple(edges)
        self.outputs = (output,) if isinstance(output, str) else tuple(output)
        self.dim = dim
        self.structure = structure
        _check(self.nodes, self.connections, self.outputs, structure)
        targets = {edge.target for edge in self.connections}
        positions = list(self.nodes)
        self.order = sorted(
            self.connections, key=lambda e: (positions.index(e.target), positions.index(e.source))
        )
        self.inputs = tuple(name for name in self.nodes if name not in targets)
        self.edges = nn.ModuleDict()
        self._places: dict[str, tuple[str, Place]] = {}
        for edge in self.connections:
            place = Place(
                self.nodes[edge.source], self.nodes[edge.target], edge.stride, affine, statistics
            )
            made: dict[str, nn.Module] = {}
            for name in edge.names:
                try:
                    made[name] = make_primitive(name, place)
                except ValueError as error:
                    raise ValueError(f"On edge {edge.source} -> {edge.target}: {error}") from error
            self.edges[edge_key(edge)] = self._edge(edge, made, place)

    def _edge(self, edge: GraphEdge, made: dict[str, nn.Module], place: Place) -> nn.Module:
        self._places[edge_key(edge)] = where = (f"{edge.source} -> {edge.target}", place)
        if len(made) == 1:
            return next(iter(made.values()))
        mixed = MixedOperation(made)
        mixed.where = where
        return mixed

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output nodes.

        Args:
            inputs: One tensor for each node that no edge leads to, in the order of the nodes.

        Raises:
            ValueError: If the number of inputs is wrong.
        """
        values = self.node_values(*inputs)
        return join([values[name] for name in self.outputs], self.dim)

    def node_values(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the representation at each node, by name.

        Args:
            inputs: As for `forward`.

        Raises:
            ValueError: If the number of inputs is wrong.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"Expected an input for each of the nodes {list(self.inputs)}, but got "
                f"{len(inputs)}."
            )
        values = dict(zip(self.inputs, inputs, strict=True))
        for edge in self.order:
            key, x = edge_key(edge), values[edge.source]
            module, where = self.edges[key], self._places[key]
            mixed = isinstance(module, MixedOperation)
            made = module(x) if mixed else applied(edge.names[0], module, x, where)
            known = values.get(edge.target)
            values[edge.target] = made if known is None else known + made
        return values

    def group_name(self, edge: GraphEdge) -> str:
        """Return the name of the group of an edge's operations; the same in each such graph."""
        return f"{self.structure}.{edge.source}.{edge.target}"

    def choices(self) -> Iterator[tuple[str, MixedOperation]]:
        """Yield the name of the group and the candidates of each edge that has a choice."""
        for edge in self.connections:
            module = self.edges[edge_key(edge)]
            if isinstance(module, MixedOperation):
                yield self.group_name(edge), module

    def operation_candidates(self) -> Iterator[OperationCandidates]:
        """Yield the candidates of each edge that has a choice, as `find_edges` asks for them."""
        for edge in self.connections:
            module = self.edges[edge_key(edge)]
            if isinstance(module, MixedOperation):
                gate = f"edges.{edge_key(edge)}.gate"
                yield OperationCandidates(self.group_name(edge), module.names, gate)


def edge_key(edge: GraphEdge) -> str:
    """Return the name of the submodule of an edge."""
    return f"{edge.source}__{edge.target}"


def join(values: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate outputs, where there are several."""
    return values[0] if len(values) == 1 else torch.cat(list(values), dim=dim)


def _check(
    nodes: Mapping[str, int],
    edges: Sequence[GraphEdge],
    outputs: Sequence[str],
    structure: str,
) -> None:
    for name, size in nodes.items():
        if not isinstance(name, str) or not name.isidentifier() or "__" in name:
            raise ValueError(
                f"Expected names of nodes that are identifiers without '__', but got {name!r}."
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"Expected a positive number of features of {name!r}, got {size!r}.")
    if not structure.isidentifier():
        raise ValueError(f"Expected structure to be an identifier, but got {structure!r}.")
    order = {name: index for index, name in enumerate(nodes)}
    seen: set[tuple[str, str]] = set()
    for edge in edges:
        for node in (edge.source, edge.target):
            if node not in order:
                raise ValueError(
                    f"Expected edges between the nodes {list(nodes)}, but {edge.source} -> "
                    f"{edge.target} names {node!r}."
                )
        if order[edge.source] >= order[edge.target]:
            raise ValueError(
                f"Expected edges from earlier to later nodes, but got {edge.source} -> "
                f"{edge.target}. Change the order of the nodes."
            )
        if (edge.source, edge.target) in seen:
            raise ValueError(
                f"Expected each edge once, but {edge.source} -> {edge.target} is given twice. Put "
                "all its operations into one edge."
            )
        if not edge.names or len(set(edge.names)) != len(edge.names):
            raise ValueError(
                f"Expected different operations on {edge.source} -> {edge.target}, at least one, "
                f"but got {list(edge.names)}."
            )
        if edge.names == ("none",):
            raise ValueError(
                f"Expected an operation besides 'none' on {edge.source} -> {edge.target}. Leave "
                "the edge out."
            )
        if edge.stride < 1:
            raise ValueError(f"Expected a stride of at least 1, but got {edge.stride}.")
        seen.add((edge.source, edge.target))
    targets = {edge.target for edge in edges}
    if not targets:
        raise ValueError("Expected at least one edge, but got none.")
    for name in outputs:
        if name not in targets:
            raise ValueError(
                f"Expected the output among the nodes that edges lead to, {sorted(targets)}, but "
                f"got {name!r}."
            )
    if not outputs:
        raise ValueError("Expected at least one output node, but got none.")
