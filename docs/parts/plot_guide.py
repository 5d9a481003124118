"""A guide
=======

A guide is the family of distributions in which the posterior is sought. Any Pyro guide of the model's sites can be fitted: a
module that samples them, or one of Pyro's AutoGuides. A guide that derives from :class:`pyro_relevance.guides.RelevanceGuide`
may answer questions about itself, and each answer buys speed or exactness.
"""

import pyro
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import pyro_relevance as pr


class Factors(nn.Module, pr.guides.RelevanceGuide):
    """Gates that depend on each other through a few common Gaussian factors."""

    vectorised = True  # plain tensor code: chains are computed together, steps are recorded
    gate_parameters = ("log_odds", "loading")  # they get the gates' learning rate

    def __init__(self, model: pr.RelevanceModel, num_factors: int = 2) -> None:
        super().__init__()
        self.model = (model,)  # in a tuple: its parameters are not the guide's
        odds = model.prior_log_odds
        self.log_odds = nn.Parameter(torch.full_like(odds, 1.0))
        self.loading = nn.Parameter(0.1 * torch.randn(len(odds), num_factors))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> dict[str, Tensor]:
        """Sample the model's site ``gate``; called without data when the posterior is drawn."""
        zeros = self.log_odds.new_zeros(self.loading.shape[1])
        normal = pyro.distributions.Normal(zeros, 1.0).to_event(1)
        factor = pyro.sample("factor", normal, infer={"is_auxiliary": True})
        odds = self.log_odds + self.loading @ factor
        gates = self.model[0].gate_distribution(odds, 1 if x is None else x.shape[0])
        return {"gate": pyro.sample("gate", gates)}

    def latent_means(self) -> dict[str, Tensor]:
        """Return the posterior means of latent weights: there are none, weights are points."""
        return {}


# %%
# Two columns are nearly the same, so that either of them will do.

torch.manual_seed(0)
x = torch.randn(200, 5)
x[:, 1] = x[:, 0] + 0.1 * torch.randn(200)
y = x[:, 0] + 0.3 * torch.randn(200)
network = nn.Linear(5, 1)
edges = pr.find_edges(network, granularity="input")


def fitted(guide):
    """Return the fit of a guide."""
    model = pr.RelevanceModel(
        network,
        edges,
        likelihood=pr.likelihoods.Gaussian(0.3),
        num_data=len(x),
        gate_prior=pr.priors.IndependentPrior(-6.0),
    )
    return pr.fit(
        model, (x, y), guide=guide, num_epochs=300, learning_rate=1e-2, num_chains=2, seed=0
    )


fit = fitted(Factors)
print(fit.posterior.inclusion_probability()["inputs"])
gates = fit.posterior.sample(num_samples=500).gates["inputs"]
print("both columns:", (gates[..., 0] * gates[..., 1]).mean().item())

# %%
# A guide of Pyro's answers no questions: chains are then computed one after another, and probabilities are shares of draws.

print(fitted(AutoNormal).posterior.inclusion_probability()["inputs"])

# %%
# All questions and what each answer buys
# ---------------------------------------

print(pr.guides.RelevanceGuide.__doc__)
for name in ("vectorised", "independent_gates", "independent_operations", "gate_parameters"):
    print(f"{name} = {getattr(pr.guides.RelevanceGuide, name)!r}")

# %%
# What is checked
# ---------------
# The sites that a guide draws, and what it says of them, are compared with the model before the first step.


class Short(Factors):
    """A guide whose parameters are named wrongly."""

    gate_parameters = ("odds",)


try:
    fitted(Short)
except ValueError as error:
    print(error)
