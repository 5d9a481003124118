"""``network``: what is read by what
=================================
"""

import torch

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(300, 5)
y = torch.tanh(x[:, 0] + x[:, 1]) + 0.1 * torch.randn(300)
network = pr.networks.MLP(5, [8], 1)
edges = pr.find_edges(network, granularity=("input", "weight"), input_labels=list("abcde"))
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.15, learn_noise=False),
    num_data=300,
    gate_prior=pr.priors.IndependentPrior(-2.0),
)
fit = pr.fit(model, (x, y), num_epochs=300, learning_rate=5e-3)
idata = pr.to_arviz(fit.posterior)

# %%
# Colour is the probability that a connection is included; removed ones are dashed and thin.

figure = pr.plots.network(idata, mask=pr.masks.median_probability(fit.posterior))
