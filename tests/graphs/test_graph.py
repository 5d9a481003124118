"""Relaxed graphs against sums written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance.graphs import Graph, GraphEdge, MixedOperation

EDGES = (
    GraphEdge("x", "h", ("linear_relu", "linear_tanh")),
    GraphEdge("h", "y", "linear"),
    GraphEdge("x", "y", ("none", "linear")),
)
NODES = {"x": 3, "h": 5, "y": 2}


def make_graph(**settings):
    torch.manual_seed(0)
    return Graph(NODES, EDGES, output="y", **settings)


def set_gates(graph, **gates):
    for key, values in gates.items():
        graph.edges[key].gate = torch.tensor(values)


@pytest.mark.exact
@pytest.mark.parametrize("skip_zeros", [False, True])
def test_each_node_is_the_gated_sum_of_its_edges(skip_zeros):
    graph = make_graph()
    set_gates(graph, x__h=[0.3, 0.7], x__y=[0.8, 0.2])
    for module in graph.modules():
        if isinstance(module, MixedOperation):
            module.skip_zeros = skip_zeros
    x, edges = torch.randn(4, 3), graph.edges
    first = edges["x__h"].operations
    h = 0.3 * first["linear_relu"](x) + 0.7 * first["linear_tanh"](x)
    expected = edges["h__y"](h) + 0.2 * edges["x__y"].operations["linear"](x)
    torch.testing.assert_close(graph(x), expected)


@pytest.mark.exact
def test_operations_whose_gate_is_zero_are_not_computed_where_zeros_are_skipped():
    graph, calls = make_graph(), []
    mixed = graph.edges["x__h"]
    for name, operation in mixed.operations.items():
        operation.register_forward_hook(lambda *_, name=name: calls.append(name))
    set_gates(graph, x__h=[0.0, 1.0])
    graph(torch.randn(4, 3))
    assert calls == ["linear_relu", "linear_tanh"]
    calls.clear()
    mixed.skip_zeros = True
    graph(torch.randn(4, 3))
    assert calls == ["linear_tanh"]


@pytest.mark.exact
def test_a_choice_of_none_is_zero():
    graph = make_graph()
    mixed = graph.edges["x__y"]
    mixed.gate, mixed.skip_zeros = torch.tensor([1.0, 0.0]), True
    assert torch.equal(mixed(torch.randn(4, 3)), torch.zeros(4, 2))
    mixed.gate = torch.zeros(2)
    with pytest.raises(ValueError, match="that is not zero, but all of them are"):
        mixed(torch.randn(4, 3))


@pytest.mark.exact
def test_several_outputs_are_concatenated_and_several_inputs_taken_in_order():
    graph = Graph(
        {"a": 2, "b": 3, "p": 4, "q": 5},
        [GraphEdge("b", "q", "linear"), GraphEdge("a", "p", "linear")],
        output=("q", "p"),
    )
    a, b = torch.randn(6, 2), torch.randn(6, 3)
    expected = torch.cat([graph.edges["b__q"](b), graph.edges["a__p"](a)], 1)
    assert torch.equal(graph(a, b), expected)
    with pytest.raises(ValueError, match=r"an input for each of the nodes \['a', 'b'\], but got 1"):
        graph(a)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("nodes", "edges", "output", "message"),
    [
        ({"x": 3, "y": 0}, [], "y", "a positive number of features of 'y'"),
        ({"x": 3, "a b": 2}, [], "y", "that are identifiers"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "z", "linear")], "y", "names 'z'"),
        ({"x": 3, "y": 2}, [GraphEdge("y", "x", "linear")], "y", "from earlier to later nodes"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "linear")] * 2, "y", "is given twice"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", ("linear", "linear"))], "y", "different operat"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", ())], "y", "at least one"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "none")], "y", "besides 'none'"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "linear", 0)], "y", "a stride of at least 1"),
        ({"x": 3, "y": 2}, [], "y", "at least one edge"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "linear")], "x", "Expected the output among"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "linear")], (), "at least one output"),
        ({"x": 3, "y": 2}, [GraphEdge("x", "y", "identity")], "y", "On edge x -> y: Expected as"),
    ],
)
def test_what_is_wrong_with_a_graph_is_told_before_any_work(nodes, edges, output, message):
    with pytest.raises(ValueError, match=message):
        Graph(nodes, edges, output=output)


@pytest.mark.contract
def test_a_graph_is_a_plain_module():
    graph = make_graph()
    assert isinstance(graph, nn.Module)
    other = make_graph()
    other.load_state_dict(graph.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(graph(x), other(x))
