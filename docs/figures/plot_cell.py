"""``cell``: a graph and its operations
====================================
"""

import torch

import pyro_relevance as pr
from pyro_relevance.graphs import Graph, GraphEdge

candidates = ("none", "identity", "linear_relu", "linear_tanh")
graph = Graph(
    {"x": 6, "a": 6, "b": 6, "y": 1},
    [
        GraphEdge("x", "a", candidates),
        GraphEdge("x", "b", candidates),
        GraphEdge("a", "b", candidates),
        GraphEdge("b", "y", "linear"),
    ],
    output="y",
)
torch.manual_seed(0)
x = torch.randn(300, 6)
y = torch.relu(x[:, 0]) + 0.1 * torch.randn(300)
edges = pr.find_edges(graph, granularity="operation")
model = pr.RelevanceModel(graph, edges, likelihood=pr.likelihoods.Gaussian(0.2), num_data=300)
fit = pr.fit(model, (x, y), num_epochs=120, learning_rate=5e-3, gate_learning_rate=5e-2)

# %%
# Parts of a bar are the probabilities of the operations of an edge; ``none`` is white.

figure = pr.plots.cell(pr.to_arviz(fit.posterior))
