"""Random small graphs of operators, known and unknown: an exact result, or an error in words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import EdgeError
from pyro_relevance.surgery.pruning import apply_mask, load_pruned, prune

WIDTH = 6
# From two values of WIDTH columns, a layer and a matrix of parameters to one of WIDTH columns.
OPERATORS = {
    "relu": lambda a, b, layer, w: F.relu(a),
    "layer": lambda a, b, layer, w: layer(a),
    "twice": lambda a, b, layer, w: layer(layer(a)),
    "add": lambda a, b, layer, w: a + b,
    "in_place": lambda a, b, layer, w: torch.tanh(a).add_(b),
    "part_in_place": lambda a, b, layer, w: _part(a, b),
    "product": lambda a, b, layer, w: a @ w,
    "transposed": lambda a, b, layer, w: F.linear(a, w.t()),
    "einsum": lambda a, b, layer, w: torch.einsum("ni,ij->nj", a, w),
    "computed": lambda a, b, layer, w: F.linear(a, w * 2),
    "direct": lambda a, b, layer, w: layer(a) + layer.weight.sum(),
    "halves": lambda a, b, layer, w: torch.hstack([a[:, 3:], b[:, :3]]),
    "glu": lambda a, b, layer, w: F.glu(torch.concatenate([a, b], -1)),
    "softmax": lambda a, b, layer, w: a.softmax(-1),
    "sorted": lambda a, b, layer, w: a.sort(-1).values,
    "flip": lambda a, b, layer, w: a.flip(-1),
    "roll": lambda a, b, layer, w: a.roll(2, -1),
    "constant": lambda a, b, layer, w: a * torch.arange(1.0, WIDTH + 1),
    "zeros": lambda a, b, layer, w: torch.zeros_like(a) + b,
    "new_zeros": lambda a, b, layer, w: a.new_zeros(len(a), WIDTH) + b,
    "gram": lambda a, b, layer, w: (a.t() @ b).mean() * a,
    "normal": lambda a, b, layer, w: a + torch.randn_like(b),
    "unfold": lambda a, b, layer, w: a.unfold(1, 2, 1).sum(-1).repeat(1, 2)[:, :WIDTH],
    "scatter": lambda a, b, layer, w: a.index_fill(1, torch.tensor([0, 2]), 0.5),
    "size": lambda a, b, layer, w: a * a.shape[1] ** 0.5 / len(b),
}


def _part(a, b):
    a = a.clone()
    a[:, 1:4] += b[:, :3]
    return a


class Graph(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.enter, self.leave = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 2)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.weights = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 2 for _ in range(2))

    def forward(self, x):
        values = [self.enter(x)]
        for name, one, other, layer in self.steps:
            a, b = values[one % len(values)], values[other % len(values)]
            values.append(OPERATORS[name](a, b, self.layers[layer], self.weights[layer]))
        return self.leave(values[-1])


steps = st.lists(
    st.tuples(
        *(st.sampled_from(sorted(OPERATORS)), st.integers(0, 5), st.integers(0, 5)),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.property
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(steps=steps, seed=st.integers(0, 100))
def test_random_graphs_are_pruned_exactly_or_refused_in_words(steps, seed, tmp_path_factory):
    torch.manual_seed(seed)
    network, x = Graph(steps).eval(), torch.randn(3, 4)
    try:
        edges = find_edges(network, example_input=x)
    except EdgeError:  # in words
        return
    mask = {group.name: torch.rand(group.shape) < 0.6 for group in edges}
    pruned = prune(network, edges, mask, example_input=x)
    masked, fresh = apply_mask(network, edges, mask).eval(), torch.randn(5, 4)
    path = tmp_path_factory.mktemp("fuzz") / "pruned.safetensors"
    outputs = []
    pruned.save(path)
    for made in (masked, pruned.eval(), load_pruned(path)):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(made(fresh))
    expected, *found = outputs
    scale = max(1.0, float(expected.abs().max()))
    assert all(float((expected - output).abs().max()) <= 1e-5 * scale for output in found)
