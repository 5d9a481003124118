"""``relevance``: a forest of edges
================================
"""

import torch

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(300, 8)
y = 1.5 * x[:, 0] - x[:, 1] + 0.3 * x[:, 2] + 0.5 * torch.randn(300)
network = torch.nn.Linear(8, 1)
edges = pr.find_edges(network, granularity="input", input_labels=list("abcdefgh"))
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.5),
    num_data=300,
    weight_prior=pr.priors.GaussianWeights(),
)
fit = pr.fit(model, (x, y), num_epochs=300, learning_rate=1e-2, num_chains=3)
idata = pr.to_arviz(fit.posterior)

# %%
# Dots are means over chains and draws, filled above the threshold; small dots are single chains.

figure = pr.plots.relevance(idata, group="inputs", threshold=0.5)
