"""``training``: has the fit ended?
================================
"""

import torch

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(300, 5)
y = torch.tanh(x[:, 0] + x[:, 1]) + 0.1 * torch.randn(300)
network = pr.networks.MLP(5, [8], 1)
edges = pr.find_edges(network, granularity=("input", "unit"))
model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Gaussian(0.2), num_data=300)
fit = pr.fit(model, (x, y), num_epochs=200, learning_rate=5e-3, num_chains=3)

# %%

figure = pr.plots.training(pr.to_arviz(fit.posterior))
