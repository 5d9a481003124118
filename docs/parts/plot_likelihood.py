"""A likelihood
============

A likelihood maps the network's outputs to the distribution of the target. It has a ``task``, ``forward``, ``mean``, ``num_outputs`` and
``settings``, the protocol :class:`pyro_relevance.likelihoods.Likelihood`. As a module it may have parameters of its own; they are learned with the
weights.

Here: counts with more spread than Poisson's, the negative binomial distribution with a learned dispersion.
"""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_relevance as pr


class NegativeBinomial(nn.Module):
    """Counts with mean ``softplus(output)`` and a learned number of failures."""

    task = "count"

    def __init__(self, failures: float = 5.0) -> None:
        super().__init__()
        self.log_failures = nn.Parameter(torch.tensor(float(failures)).log())

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return the distribution of the targets, batch shape ``(num_data,)``."""
        failures = self.log_failures.exp()
        odds = self.mean(outputs).log() - self.log_failures
        return dist.NegativeBinomial(failures, logits=odds, validate_args=False)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the expected counts, ``(num_data,)``."""
        return nn.functional.softplus(outputs.squeeze(-1)) + 1e-6

    def num_outputs(self) -> int:
        """Return how many outputs the network must have."""
        return 1

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments."""
        return {"failures": float(self.log_failures.detach().exp())}


# %%
# Two of four columns matter.

torch.manual_seed(0)
x = torch.randn(400, 4)
rate = nn.functional.softplus(1.0 + x[:, 0] - x[:, 1])
y = torch.distributions.NegativeBinomial(3.0, logits=(rate / 3.0).log()).sample()

network = pr.networks.MLP(4, [8], 1)
edges = pr.find_edges(network, granularity="input")
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=NegativeBinomial(),
    num_data=len(x),
    gate_prior=pr.priors.IndependentPrior(-4.0),
)
fit = pr.fit(model, (x, y), num_epochs=400, learning_rate=1e-2, seed=0)
print(fit.posterior.inclusion_probability()["inputs"])

# %%
# It serves everything that a likelihood of the library serves: predictions, pointwise log likelihood, ArviZ.

idata = pr.to_arviz(fit.posterior, data=(x, y))
print(idata["log_likelihood"]["y"].shape)

# %%
# What is checked
# ---------------
# The distribution has one entry for each example, and the mean its shape: a column would be broadcast in silence.


class Column(NegativeBinomial):
    """A likelihood that forgets to squeeze."""

    def mean(self, outputs):
        """Return a column."""
        return nn.functional.softplus(outputs) + 1e-6


wrong = pr.RelevanceModel(network, edges, likelihood=Column(), num_data=len(x))
try:
    pr.fit(wrong, (x, y), num_epochs=1)
except ValueError as error:
    print(error)
