"""Architectures against enumeration of the NAS-Bench-201 cell."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from pyro_relevance import find_edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs import (
    NASBENCH201_OPERATIONS,
    Architecture,
    Graph,
    GraphEdge,
    canonical,
    free_edges,
    is_connected,
    mode,
    most_probable,
    spaces,
)

FUNCTIONS = {
    "nor_conv_1x1": lambda v: torch.sin(1.3 * v) * 1.7,
    "nor_conv_3x3": lambda v: torch.tanh(0.7 * v) * 2.1,
    "avg_pool_3x3": lambda v: v.abs().sqrt() * v * 0.3,
    "skip_connect": lambda v: v,
    "none": lambda v: 0 * v,
}
"""Operations as functions of numbers that are all zero at zero, and alike in nothing else."""


def all_cells() -> list[Architecture]:
    names = [f"cell.n{i}.n{j}" for j in range(1, 4) for i in range(j)]
    choices = itertools.product(NASBENCH201_OPERATIONS, repeat=6)
    return [Architecture(dict(zip(names, choice, strict=True))) for choice in choices]


def value(cell: Architecture) -> tuple[float, ...]:
    nodes: list[Tensor] = [torch.tensor([0.7, -1.1, 2.3], dtype=torch.float64)]
    for j in range(1, 4):
        terms = [FUNCTIONS[cell.operations[f"cell.n{i}.n{j}"]](nodes[i]) for i in range(j)]
        nodes.append(torch.stack(terms).sum(0))
    return tuple((nodes[3] * 1e9).round().tolist())


def chance_of(probability: dict[str, Tensor], cell: Architecture) -> float:
    return math.prod(
        float(probability[n][NASBENCH201_OPERATIONS.index(o)]) for n, o in cell.operations.items()
    )


@pytest.mark.exact
def test_cells_have_one_text_if_and_only_if_they_are_one_function():
    network, functions = spaces.nasbench201_cell(1), {}
    for cell in all_cells():
        functions.setdefault(value(cell), set()).add(canonical(network, cell))
    assert all(len(texts) == 1 for texts in functions.values())
    assert len(functions) == len(set().union(*functions.values())) == 4930


@pytest.mark.exact
def test_a_free_edge_may_be_any_operation_and_no_other_may():
    network = spaces.nasbench201_cell(1)
    for cell in all_cells()[::97]:
        for name in cell.operations:
            same = all(
                value(Architecture({**cell.operations, name: other})) == value(cell)
                for other in NASBENCH201_OPERATIONS
            )
            assert same == (name in free_edges(network, cell)) or not any(value(cell))


@pytest.mark.exact
def test_connected_means_that_the_output_is_not_zero():
    network = spaces.nasbench201_cell(1)
    cells = all_cells()[::7]
    assert [is_connected(network, cell) for cell in cells] == [any(value(c)) for c in cells]


@pytest.mark.exact
def test_most_probable_are_in_order_and_those_alike_count_as_one():
    network = spaces.nasbench201_cell(1)
    edges = find_edges(network, granularity="operation")
    generator = torch.Generator().manual_seed(0)
    probability = {
        g.name: torch.randn(5, generator=generator, dtype=torch.float64).softmax(-1)
        for g in edges.operations
    }
    chance = functools.partial(chance_of, probability)
    cells = sorted(all_cells(), key=chance, reverse=True)
    found = most_probable(edges, probability, 20)
    assert [a for a, _ in found] == cells[:20]
    assert [p for _, p in found] == pytest.approx([chance(c) for c in cells[:20]])
    assert mode(edges, probability) == cells[0]
    classes: dict[str, float] = {}
    for cell in cells:
        text = canonical(network, cell)
        classes[text] = classes.get(text, 0.0) + chance(cell)
    merged = most_probable(
        edges, probability, 5, key=lambda a: canonical(network, a), num_visited=15_625
    )
    assert [p for _, p in merged] == pytest.approx(sorted(classes.values(), reverse=True)[:5])


@pytest.mark.exact
def test_the_mode_with_a_network_passes_over_what_has_no_path():
    network = spaces.nasbench201_cell(1)
    edges = find_edges(network, granularity="operation")
    generator = torch.Generator().manual_seed(1)
    probability = {
        g.name: torch.tensor([0.6, *(0.4 * torch.rand(4, generator=generator).softmax(0))])
        for g in edges.operations
    }
    assert set(mode(edges, probability).operations.values()) == {"none"}
    connected = [cell for cell in all_cells() if any(value(cell))]
    best = max(connected, key=functools.partial(chance_of, probability))
    assert mode(edges, probability, network=network) == best


@pytest.mark.contract
def test_a_posterior_of_nothing_but_none_is_told():
    # The one path in this chain is the least probable of 2 ** 14 architectures.
    nodes = [f"n{i}" for i in range(15)]
    chain = [GraphEdge(a, b, ("none", "identity")) for a, b in itertools.pairwise(nodes)]
    graph = Graph(dict.fromkeys(nodes, 2), chain, output=nodes[-1])
    edges = find_edges(graph, granularity="operation")
    probability = {g.name: torch.tensor([0.9, 0.1]) for g in edges.operations}
    with pytest.raises(ArchitectureError, match="'none' on too many edges"):
        mode(edges, probability, network=graph)


@pytest.mark.exact
def test_gates_and_texts_go_there_and_back():
    edges = find_edges(spaces.nasbench201_cell(1), granularity="operation")
    for cell in all_cells()[::501]:
        assert Architecture.from_gates(edges, cell.gates(edges)) == cell
        text = spaces.architecture_to_string(cell)
        assert spaces.architecture_from_string(text) == cell
        assert hash(cell) == hash(Architecture(dict(reversed(cell.operations.items()))))


@pytest.mark.contract
def test_a_choice_that_does_not_fit_is_told():
    edges = find_edges(spaces.nasbench201_cell(1), granularity="operation")
    cell = all_cells()[0]
    with pytest.raises(ArchitectureError, match="Expected an operation for each of the edges"):
        Architecture({"cell.n0.n1": "none"}).gates(edges)
    with pytest.raises(ArchitectureError, match=r"for the edge 'cell.n0.n1', but got 'conv'"):
        Architecture({**cell.operations, "cell.n0.n1": "conv"}).gates(edges)
    with pytest.raises(ArchitectureError, match="Expected a cell such as"):
        spaces.architecture_from_string("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|")
    with pytest.raises(ValueError, match="Expected positive numbers"):
        most_probable(edges, {}, 0)
