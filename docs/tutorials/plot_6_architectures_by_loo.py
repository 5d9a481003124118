"""Comparing architectures by LOO
==============================

One fit of a relaxed graph has a posterior over architectures. ``architectures_to_arviz`` scores several of them on held-out
examples under that same posterior, and ``az.compare`` ranks them with standard errors.
"""

import arviz as az
import torch

import pyro_relevance as pr
from pyro_relevance.graphs import Architecture

torch.manual_seed(0)
x = torch.randn(400, 3)
y = torch.relu(x[:, 0]) + 0.3 * x[:, 1] + 0.2 * torch.randn(400)

network = pr.graphs.spaces.mlp_space(3, 1, width=12, depth=1)
edges = pr.find_edges(network, granularity="operation")
print(edges)

# %%

model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.3),
    num_data=300,
    weight_prior=pr.priors.GaussianWeights(),
)
fit = pr.fit(model, (x[:300], y[:300]), num_epochs=150, learning_rate=1e-2, gate_learning_rate=5e-2)
probability = {name: p[0] for name, p in fit.posterior.operation_probability().items()}
for group in edges.operations:
    values = [round(p, 3) for p in probability[group.name].tolist()]
    print(group.name, dict(zip(group.labels, values, strict=True)))

# %%
# The most probable architecture, and the same with another operation on each edge.

best = pr.graphs.mode(edges, probability, network=network)
candidates = {"most probable": best}
for group in edges.operations:
    for operation in group.labels:
        if operation not in (best.operations[group.name], "none"):
            changed = {**best.operations, group.name: operation}
            candidates[f"{group.name} = {operation}"] = Architecture(changed)
scored = pr.report.architectures_to_arviz(fit.posterior, candidates, (x[300:], y[300:]))

# %%
# ``elpd_diff`` is the difference in expected log predictive density to the best one, ``dse`` its standard error. A difference of
# less than two standard errors says that the data do not tell the two apart. ``warning`` is ArviZ's for a Pareto k that is too large:
# leaving out a row would change the posterior, and its number is rough.

import warnings  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the column says it
    comparison = az.compare(scored)
print(comparison.to_string())

# %%
# Differences to the best one, with their standard errors.

from matplotlib.figure import Figure  # noqa: E402

figure = Figure(figsize=(6.5, 2.6), layout="constrained")
axes = figure.subplots()
axes.errorbar(-comparison["elpd_diff"], comparison.index, xerr=comparison["dse"], fmt="o")
axes.axvline(0, color="grey", linewidth=1)
axes.invert_yaxis()
axes.set_xlabel("Expected log predictive density, difference to the best (nats)")
