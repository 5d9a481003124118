"""Plain networks derived from relaxed ones: the same function, nothing left, files that load."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from pyro_relevance import apply_mask, derive, find_edges, load_pruned, prune
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs import (
    Architecture,
    Graph,
    GraphEdge,
    is_connected,
    operation_macs,
    spaces,
)
from pyro_relevance.graphs.derivation import architecture_cost, derived_mask, hard_gated

SPACES = {
    "mlp": lambda: (spaces.mlp_space(6, 2, width=5), torch.randn(4, 6)),
    "lenet": lambda: (
        spaces.lenet_space(channels=(4, 6), hidden=8, size=12),
        torch.randn(4, 1, 12, 12),
    ),
    "nasbench201": lambda: (
        spaces.nasbench201_space(channels=4, num_cells=1, affine=True, statistics=True),
        torch.randn(4, 3, 8, 8),
    ),
    "darts": lambda: (
        spaces.DartsNetwork(channels=4, num_cells=3, num_nodes=2, affine=True, statistics=True),
        torch.randn(4, 3, 8, 8),
    ),
}


def make_case(name, seed=0):
    """Return a network whose statistics and biases are not trivial, and an input, in float64."""
    torch.manual_seed(seed)
    network, x = SPACES[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.double().eval(), x.double()


def draw(network, edges, source, *, share_of_none=0.2):
    while True:
        chosen = {
            g.name: source.choice(
                [o for o in g.labels if o != "none" or source.random() < share_of_none]
            )
            for g in edges.operations
        }
        if is_connected(network, Architecture(chosen)):
            return Architecture(chosen)


@pytest.mark.contract
@pytest.mark.parametrize("kind", ["attention", "own", "refused"])
def test_layers_outside_of_graphs_are_made_anew_or_refused(kind):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.full((8,), 3.0))

        def forward(self, x):
            return self.factor * x

    class Own(Scale):
        def reset_parameters(self):
            nn.init.ones_(self.factor)

    class Attended(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attend(x, x, x, need_weights=False)[0]

    first = {"attention": Attended, "own": Own, "refused": Scale}[kind]()
    graph = Graph({"x": 8, "y": 8}, [GraphEdge("x", "y", ("linear", "identity"))], output="y")
    network, x = nn.Sequential(first, graph), torch.randn(2, 5, 8)
    chosen = Architecture({"graph.x.y": "linear"})
    if kind == "refused":
        with pytest.raises(ValueError, match=r"but 0 \(Scale\) has parameters and no method reset"):
            derive(network, chosen, example_input=x, weights="fresh")
        return
    small = derive(network, chosen, example_input=x, weights="fresh")
    for name, old in network[0].named_parameters():
        if old.ndim > 1 or kind == "own":
            assert not torch.equal(small.network.get_submodule("0").get_parameter(name), old)


@pytest.mark.exact
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SPACES)
def test_derived_network_is_the_hard_gated_one(name, seed, tmp_path):
    network, x = make_case(name, seed)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    edges = find_edges(network, granularity="operation")
    chosen = draw(network, edges, random.Random(seed), share_of_none=0.7)
    small = derive(network, chosen, example_input=x)
    expected = hard_gated(network, chosen)(x)
    torch.testing.assert_close(small.eval()(x), expected, rtol=1e-9, atol=1e-9)
    assert small.receipt.max_difference < 1e-12
    assert not any(isinstance(module, Graph) for module in small.modules())
    assert small.receipt.after.num_parameters < small.receipt.before.num_parameters
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    small.save(tmp_path / "small.safetensors")
    torch.testing.assert_close(load_pruned(tmp_path / "small.safetensors")(x), small(x))
    for parameter in small.parameters():
        parameter.grad = None
    small.train()(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "finer"), [("mlp", ("unit",)), *((name, ("unit", "weight")) for name in SPACES)]
)
def test_operations_units_and_weights_are_pruned_together_exactly(name, finer):
    network, x = make_case(name)
    edges = find_edges(network, granularity=("operation", *finer), example_input=x)
    # Another architecture and mask for each case: most of the time is torch.export's.
    source = random.Random(len(finer))
    torch.manual_seed(len(finer))
    chosen = draw(network, edges, source)
    mask = {g.name: torch.rand(g.shape) < 0.6 for g in edges}
    plain = derive(network, chosen, example_input=x).network
    own = find_edges(plain, granularity=finer, example_input=x)
    small = prune(plain, own, derived_mask(edges, mask, chosen, own), example_input=x)
    expected = apply_mask(hard_gated(network, chosen), edges, mask).eval()(x)
    torch.testing.assert_close(small.eval()(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.exact
def test_what_an_operation_makes_of_a_node_that_nothing_feeds_stays_as_a_constant():
    torch.manual_seed(0)
    graph = Graph(
        {"x": 3, "h": 4, "y": 2},
        [
            GraphEdge("x", "h", ("none", "linear")),
            GraphEdge("h", "y", ("linear", "linear_relu")),
            GraphEdge("x", "y", "linear"),
        ],
        output="y",
    ).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    chosen = Architecture({"graph.x.h": "none", "graph.h.y": "linear"})
    small = derive(graph, chosen, example_input=x)
    torch.testing.assert_close(small(x), hard_gated(graph, chosen)(x))
    assert small.receipt.after.num_parameters == 3 * 2 + 2 + 2
    assert small.receipt.notes == ("graph: h -> y reads nothing and is a constant.",)
    torch.testing.assert_close(small(x[:1]), hard_gated(graph, chosen)(x[:1]))


@pytest.mark.exact
def test_fresh_weights_are_new_and_normalisation_complete():
    network = spaces.nasbench201_space(channels=4, num_cells=1, affine=False, statistics=False)
    x = torch.randn(4, 3, 8, 8)
    edges = find_edges(network, granularity="operation")
    chosen = Architecture({g.name: "nor_conv_3x3" for g in edges.operations})
    torch.manual_seed(1)
    small = derive(network, chosen, example_input=x, weights="fresh")
    assert small.receipt.max_difference != small.receipt.max_difference
    assert "weights are re-initialised: nothing to compare with" in str(small.receipt)
    inside = [m for n, m in small.network.named_modules() if "edges" in n]
    norms = [m for m in inside if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 * 6 + 2 * 2
    assert all(norm.affine and norm.track_running_stats for norm in norms)
    weight = network[2].edges["n0__n1"].operations["nor_conv_3x3"][1].weight
    fresh = small.network.get_submodule("2").edges.n0__n1[1].weight
    assert weight.shape == fresh.shape
    assert not bool((weight == fresh).any())


@pytest.mark.contract
def test_wrong_architectures_are_told():
    network, x = spaces.mlp_space(6, 2, width=5, depth=1), torch.randn(4, 6)
    dead = Architecture({"mlp.a1.h1": "relu", "mlp.x.y": "none", "mlp.h1.y": "none"})
    with pytest.raises(ArchitectureError, match="every path has an edge that is 'none'"):
        derive(network, dead, example_input=x)
    with pytest.raises(ArchitectureError, match="Expected an operation for each"):
        derive(network, Architecture({}), example_input=x)
    with pytest.raises(ValueError, match="Expected weights from"):
        derive(network, dead, example_input=x, weights="old")


@pytest.mark.exact
@pytest.mark.parametrize("name", SPACES)
def test_costs_of_an_architecture_and_of_its_operations_add_up(name):
    network, x = make_case(name)
    edges = find_edges(network, granularity="operation")
    macs = operation_macs(network, x)
    assert {n: tuple(t.shape) for n, t in macs.items()} == {
        g.name: g.shape for g in edges.operations
    }
    source = random.Random(1)
    chosen = draw(network, edges, source, share_of_none=0.0)
    cost = architecture_cost(network, chosen, x)
    assert cost == derive(network, chosen, example_input=x).receipt.after
    # Another choice on one edge changes the whole by the difference of the two operations.
    for group in edges.operations[:3]:
        others = [o for o in group.labels if o not in ("none", chosen.operations[group.name])]
        if not others:
            continue
        other = Architecture({**chosen.operations, group.name: others[0]})
        labels = list(group.labels)
        change = (
            macs[group.name][labels.index(others[0])]
            - macs[group.name][labels.index(chosen.operations[group.name])]
        )
        assert architecture_cost(network, other, x).num_macs - cost.num_macs == float(change)
