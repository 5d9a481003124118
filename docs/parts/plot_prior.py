"""A prior over gates
==================

A prior says how probable each gate is before the data are seen. It is any object with three methods, the protocol
:class:`pyro_relevance.model.priors.GatePrior`:

================================  =================================================================
``log_odds(edges)``               fixed part of the log-odds, ``(num_edges,)`` in nats
``latents(edges)``                the latent sites that ``sample`` draws, a tuple of ``priors.Latent``
``sample(log_odds, edges)``       draws them and returns the log-odds of the gates, ``(num_edges,)``
================================  =================================================================

Here columns come from two laboratories, and we believe that one of them may measure nothing useful at all: the
columns of a laboratory share one latent log-odds.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_relevance as pr


@dataclass(frozen=True)
class Shared:
    """Log-odds of an edge: ``offset`` plus a Gaussian value that its laboratory shares."""

    laboratory: tuple[int, ...]
    offset: float = -2.0
    scale: float = 3.0

    def log_odds(self, edges: pr.Edges) -> Tensor:
        """Return the fixed part, ``(num_edges,)``."""
        return torch.full((edges.num_edges,), self.offset)

    def latents(self, edges: pr.Edges) -> tuple[pr.priors.Latent, ...]:
        """Return the site that ``sample`` draws; a guide makes its parameters from this."""
        start = torch.zeros(1 + max(self.laboratory))
        return (pr.priors.Latent("laboratory", "real", start, initial_scale=0.3),)

    def sample(self, log_odds: Tensor, edges: pr.Edges) -> Tensor:
        """Draw one value for each laboratory and return the log-odds of each edge."""
        zeros = log_odds.new_zeros(1 + max(self.laboratory))
        value = pyro.sample("laboratory", dist.Normal(zeros, self.scale).to_event(1))
        return log_odds + value[torch.tensor(self.laboratory, device=log_odds.device)]


# %%
# Columns 0, 1, 2 are of laboratory 0, all others of laboratory 1. The first three matter.

torch.manual_seed(0)
x = torch.randn(200, 8)
y = x[:, 0] - x[:, 1] + 0.4 * x[:, 2] + 0.5 * torch.randn(200)

network = torch.nn.Linear(8, 1)
edges = pr.find_edges(network, granularity="input")
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.5),
    num_data=len(x),
    gate_prior=Shared((0, 0, 0, 1, 1, 1, 1, 1)),
    weight_prior=pr.priors.GaussianWeights(),
)
fit = pr.fit(model, (x, y), num_epochs=600, learning_rate=1e-2, seed=0)
print(fit.posterior.inclusion_probability()["inputs"])

# %%
# The shared value is a latent variable like any other: it is in the ArviZ object under the name of its site.

idata = pr.to_arviz(fit.posterior)
print(idata["posterior"]["laboratory"].mean(("chain", "draw")).values)

# %%
# What is checked
# ---------------
# A wrong shape is found before the fit.


class TooShort(Shared):
    """A prior that forgets an edge."""

    def sample(self, log_odds, edges):
        """Return one log-odds too few."""
        return super().sample(log_odds, edges)[:-1]


try:
    pr.RelevanceModel(
        network,
        edges,
        likelihood=pr.likelihoods.Gaussian(0.5),
        num_data=len(x),
        gate_prior=TooShort((0, 0, 0, 1, 1, 1, 1, 1)),
    )
except ValueError as error:
    print(error)

# %%
# A prior over *weights* has the methods ``latents``, ``latent_parameters`` and ``sample``, see
# :class:`pyro_relevance.model.priors.WeightPrior`; one over *operations* is :class:`pyro_relevance.model.priors.OperationPrior`.
