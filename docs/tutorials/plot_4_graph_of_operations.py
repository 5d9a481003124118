"""A graph whose edges are operations
==================================

Which operation should each edge of a network compute? A :class:`~pyro_relevance.graphs.Graph` declares nodes, edges
and the candidates of each edge. The choice is a latent one-hot variable with a posterior.
"""

import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.graphs import Graph, GraphEdge, mode

candidates = ("none", "linear_relu", "linear_tanh")


class Two(nn.Module):
    """Two halves of the columns, each read by an edge of its own."""

    def __init__(self):
        super().__init__()
        self.graph = Graph(
            {"left": 3, "right": 3, "h": 12, "out": 1},
            [
                GraphEdge("left", "h", candidates),
                GraphEdge("right", "h", candidates),
                GraphEdge("h", "out", "linear"),
            ],
            output="out",
        )

    def forward(self, x):
        """Return the output node."""
        return self.graph(x[:, :3], x[:, 3:])


torch.manual_seed(0)
x = torch.randn(500, 6)
y = torch.relu(x[:, 0] - x[:, 1]) + 0.1 * torch.randn(500)  # the right half does not matter

network = Two()
edges = pr.find_edges(network, granularity="operation")
print(edges)

# %%
# Fit
# ---
# All candidates are mixed by relaxed gates while training; at the end of the run the gates are cold.

model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Gaussian(0.2), num_data=len(x))
fit = pr.fit(
    model, (x, y), num_epochs=400, learning_rate=5e-3, gate_learning_rate=5e-2, num_chains=2, seed=0
)
idata = pr.to_arviz(fit.posterior)
figure = pr.plots.cell(idata)

# %%
# The probability of each operation. Chains are fits from other starts: where they disagree, one chain says little.

for name, p in fit.posterior.operation_probability().items():
    for chain, values in enumerate(p.tolist()):
        shown = {
            operation: round(value, 3) for operation, value in zip(candidates, values, strict=True)
        }
        print(name, "chain", chain, shown)

# %%
# The plain network
# -----------------
# ``mode`` is the most probable architecture with a path from input to output; ``derive`` writes it down as a plain
# module without gates and candidates, and compares the two.

posterior = fit.posterior.chain(fit.best_chain)
probability = {name: p[0] for name, p in posterior.operation_probability().items()}
best = mode(edges, probability, network=network)
small = pr.derive(posterior.network(), best, example_input=x[:8])
print(best.operations)
print(small.receipt)

# %%
# Ready spaces are in ``pr.graphs.spaces`` (NAS-Bench-201, DARTS, tables, small images); :func:`pyro_relevance.search_structure`
# and ``pyro-relevance search`` do all of the above in one call, see :doc:`/commands`.
