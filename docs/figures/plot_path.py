"""``path``: what each density would cost
======================================
"""

import torch

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(500, 5)
y = torch.tanh(x[:, 0] + x[:, 1]) + 0.1 * torch.randn(500)
network = pr.networks.MLP(5, [8], 1)
edges = pr.find_edges(network, granularity="weight")
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.15, learn_noise=False),
    num_data=300,
    gate_prior=pr.priors.IndependentPrior(-2.0),
)
fit = pr.fit(model, (x[:300], y[:300]), num_epochs=300, learning_rate=5e-3)

# %%
# Masks along the ranking, from all edges to none, on rows that were not used. Nothing is cut for it.

masks = pr.masks.path(fit.posterior, num_points=15)
figure = pr.plots.path(pr.rule_path(fit.posterior, masks, (x[300:], y[300:])))
