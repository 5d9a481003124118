"""Search spaces against published sizes, and each of them from relaxed to plain."""

from __future__ import annotations

import pytest
import torch

from pyro_relevance import derive, find_edges
from pyro_relevance.edges.size import num_macs
from pyro_relevance.graphs import Architecture, spaces
from pyro_relevance.graphs.spaces import top_edges

CELLS = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|"
    "skip_connect~2|": (129_306, 15_647_360),
    "|skip_connect~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|skip_connect~1|nor_conv_3x3~2|": (
        587_386,
        82_494_080,
    ),
    "|none~0|+|skip_connect~0|none~1|+|none~0|skip_connect~1|nor_conv_3x3~2|": (
        316_346,
        43_172_480,
    ),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "nor_conv_3x3~2|": (1_531_546, 220_119_680),
}
"""Parameters and multiply-accumulates that NAS-Bench-201 states for CIFAR-10 (C = 16, N = 5)."""


@pytest.mark.exact
@pytest.mark.parametrize("text", CELLS)
def test_networks_of_nasbench201_have_the_size_that_the_benchmark_states(text):
    relaxed = spaces.nasbench201_space(affine=True, statistics=True)
    x = torch.randn(1, 3, 32, 32)
    cell = spaces.architecture_from_string(text)
    small = derive(relaxed, cell, example_input=x, weights="fresh").network
    assert (sum(p.numel() for p in small.parameters()), num_macs(small, x)) == CELLS[text]


@pytest.mark.exact
def test_the_hidden_layers_of_the_table_space_are_chosen_by_what_the_output_reads():
    space, x = spaces.mlp_space(13, 1, width=7, depth=3), torch.randn(4, 13)
    edges = find_edges(space, granularity="operation")
    chosen = {g.name: g.labels[0] for g in edges.operations}  # activations relu, all else none
    one = Architecture({**chosen, "mlp.h1.y": "linear"})
    small = derive(space, one, example_input=x)
    assert small.receipt.after.num_parameters == 13 * 7 + 7 + 7 + 1
    deep = Architecture({**chosen, "mlp.h3.y": "linear", "mlp.x.y": "linear"})
    expected = 13 * 7 + 7 + 2 * (7 * 7 + 7) + 7 + 1 + 13 + 1
    assert derive(space, deep, example_input=x).receipt.after.num_parameters == expected
    with pytest.raises(ValueError, match="Expected depth >= 1"):
        spaces.mlp_space(13, 1, depth=0)


@pytest.mark.exact
def test_the_image_space_contains_lenet_5():
    space, x = spaces.lenet_space(channels=(20, 50), hidden=500), torch.randn(2, 1, 28, 28)
    assert space(x).shape == (2, 10)
    chosen = Architecture(
        {
            "features.x.c1": "conv_relu_5x5",
            "features.c1.p1": "max_pool_2x2",
            "features.p1.c2": "conv_relu_5x5",
            "features.c2.p2": "max_pool_2x2",
            "classifier.a.h": "relu",
            "classifier.h.y": "linear",
            "classifier.f.y": "none",
        }
    )
    small = derive(space, chosen, example_input=x)
    padded = 20 * 26 + 50 * 501 + 500 * (50 * 49 + 1) + 10 * 501
    assert small.receipt.after.num_parameters == padded
    with pytest.raises(ValueError, match="a multiple of 4"):
        spaces.lenet_space(size=30)


@pytest.mark.exact
@pytest.mark.parametrize("num_cells", [1, 3, 5])
def test_darts_cells_halve_the_resolution_twice(num_cells):
    network, x = spaces.DartsNetwork(channels=4, num_cells=num_cells), torch.randn(2, 3, 16, 16)
    sizes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    assert network(x).shape == (2, 10)
    halvings = 2 if num_cells >= 3 else 0
    assert sizes[-1] == (4 * 4 * 2**halvings, 16 // 2**halvings, 16 // 2**halvings)
    assert sum(cell.structure == "reduction" for cell in network.cells) == halvings


@pytest.mark.exact
def test_the_rule_of_darts_keeps_the_two_strongest_edges_into_each_node():
    network = spaces.DartsNetwork(channels=4, num_cells=3, num_nodes=3)
    edges = find_edges(network, granularity="operation")
    generator = torch.Generator().manual_seed(0)
    probability = {g.name: torch.rand(8, generator=generator).softmax(-1) for g in edges.operations}
    chosen = top_edges(edges, probability).operations
    for structure in ("normal", "reduction"):
        for node in ("n0", "n1", "n2"):
            into = {n: o for n, o in chosen.items() if n.startswith(structure) and n.endswith(node)}
            strength = {n: float(probability[n][1:].max()) for n in into}
            kept = sorted(strength, key=strength.__getitem__)[-2:]
            assert {name for name, operation in into.items() if operation != "none"} == set(kept)
            for name in kept:
                best = int(probability[name][1:].argmax()) + 1
                assert into[name] == edges[name].labels[best]
