"""A score and a rule
==================

A *score* is a number for each edge, larger = more relevant. A *rule* turns scores into a :class:`~pyro_relevance.Mask`. All rules of the library take a
mapping from group to a tensor of the group's shape, so a score of your own needs no rule of its own, and a rule of your own is a function
that returns a mask.
"""

import torch
from torch import Tensor

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(300, 6)
y = torch.tanh(x[:, 0] + x[:, 1]) + 0.3 * x[:, 2] + 0.2 * torch.randn(300)
network = pr.networks.MLP(6, [10], 1)
edges = pr.find_edges(network, granularity=("input", "unit"))
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.2),
    num_data=len(x),
    gate_prior=pr.priors.IndependentPrior(-3.0),
)
fit = pr.fit(model, (x, y), num_epochs=300, learning_rate=5e-3, seed=0)
posterior = fit.posterior

# %%
# A score
# -------
# A pure function of draws: here the mean effect of an edge times the probability that it is on.


def weighted_effect(posterior: pr.Posterior, num_samples: int = 200) -> dict[str, Tensor]:
    """Return group -> ``(*group.shape)`` scores of the first chain."""
    draws = posterior.sample(num_samples=num_samples)
    effect = pr.relevance.effect(draws, posterior.edges)
    probability = pr.relevance.inclusion_probability(draws)
    return {name: (effect[name][0].mean(0) * probability[name][0]) for name in effect}


scores = weighted_effect(posterior)
print({name: score.round(decimals=2) for name, score in scores.items()})

# %%
# Any rule of the library takes it. ``with_risk`` adds what the mask risks by the posterior, although the score is no probability.

mask = pr.masks.budget(scores, num_parameters=40, edges=edges)
probability = {name: p[0] for name, p in posterior.inclusion_probability().items()}
print(mask.with_risk(probability))

# %%
# A rule
# ------
# Keep the inputs above one half, and in each layer at most ``most`` units. A mask states its rule in words.


def few_units(posterior: pr.Posterior, most: int) -> pr.Mask:
    """Return the mask of the most probable units, at most ``most`` in a layer."""
    kept = {}
    for group in posterior.edges:
        p = posterior.inclusion_probability()[group.name][0]
        kept[group.name] = p > 0.5
        if group.granularity == "unit":
            first = torch.zeros_like(kept[group.name])
            first[p.argsort(descending=True)[:most]] = True
            kept[group.name] &= first
    return pr.Mask(kept, rule=f"inclusion probability above 1/2, at most {most} units a layer")


mask = few_units(posterior, most=4)
print(mask)
print(pr.prune(posterior.network(), edges, mask, example_input=x).receipt)

# %%
# What is checked
# ---------------

try:
    pr.prune(posterior.network(), edges, pr.Mask({"inputs": torch.ones(5) > 0}), example_input=x)
except ValueError as error:
    print(error)
