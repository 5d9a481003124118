"""A primitive
===========

A primitive is what an edge of a graph can be. It is a function, or a class, that makes a module for a
:class:`~pyro_relevance.graphs.Place`: how many features come in (``place.source``), how many go out (``place.target``), and whether the resolution of an
image falls (``place.stride``). ``@graphs.primitive("name")`` gives it the name that graphs, posteriors and figures use.
"""

import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance.graphs import Graph, GraphEdge, Place, primitive


@primitive("periodic")
class Periodic(nn.Module):
    """Linear map and sine."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.linear = nn.Linear(place.source, place.target)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., place.target)`` features."""
        return torch.sin(self.linear(x))


# %%
# Which activation do these data ask for?

torch.manual_seed(0)
x = 3 * torch.randn(400, 2)
y = torch.sin(1.5 * x[:, 0]) + 0.1 * torch.randn(400)

network = nn.Sequential(
    Graph(
        {"x": 2, "h": 16, "y": 1},
        [
            GraphEdge("x", "h", ("linear_relu", "linear_tanh", "periodic")),
            GraphEdge("h", "y", "linear"),
        ],
        output="y",
    )
)
edges = pr.find_edges(network, granularity="operation")
model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Gaussian(0.2), num_data=len(x))
fit = pr.fit(model, (x, y), num_epochs=300, learning_rate=1e-2, gate_learning_rate=5e-2, seed=0)
for name, p in fit.posterior.operation_probability().items():
    print(name, dict(zip(edges.operations[0].labels, p[0].tolist(), strict=True)))
figure = pr.plots.cell(pr.to_arviz(fit.posterior))

# %%
# What is checked
# ---------------
# What a primitive makes is compared with its place at each call, so that the first one that does not fit is named.


@primitive("too_wide")
def too_wide(place):
    """Return a linear map that makes one feature too many."""
    return nn.Linear(place.source, place.target + 1)


wrong = Graph({"x": 2, "y": 1}, [GraphEdge("x", "y", ("linear", "too_wide"))], output="y")
try:
    wrong(x)
except ValueError as error:
    print(error)
