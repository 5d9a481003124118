"""Reading the posterior in ArviZ
==============================

``to_arviz`` gives an ``InferenceData`` (ArviZ 0.x) or a ``DataTree`` (ArviZ 1.x). A *chain* is one independent fit, *draws* are
samples of the guide.
"""

import arviz as az
import torch

import pyro_relevance as pr

torch.manual_seed(0)
x = torch.randn(300, 6)
y = 1.5 * x[:, 0] - x[:, 1] + 0.5 * x[:, 2] + 0.5 * torch.randn(300)
names = ["strong", "middle", "weak", "noise 1", "noise 2", "noise 3"]

# %%
# A linear model with Gaussian weights, a learned noise scale and a learned inclusion rate: settings under which
# inclusion probabilities are close to the exact ones (:doc:`/trust`).

network = torch.nn.Linear(6, 1)
edges = pr.find_edges(network, granularity="input", input_labels=names)
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.5),
    num_data=len(x),
    gate_prior=pr.priors.HierarchicalPrior(),
    weight_prior=pr.priors.GaussianWeights(),
)
fit = pr.fit(model, (x, y), num_epochs=800, learning_rate=1e-2, num_chains=4, seed=0)
print(pr.diagnose(fit))

# %%
# Groups
# ------
# ``relevance`` has a gate, an inclusion probability and an effect for each edge, with your names as coordinates;
# ``posterior`` has the latent sites and weights; ``log_likelihood`` is pointwise.

idata = pr.to_arviz(fit.posterior, data=(x, y))
wanted = ["inputs_inclusion_probability"]
print(az.summary(idata, group="relevance", var_names=wanted, kind="stats").to_string())
print(az.summary(idata, var_names=["inclusion_logit"]).to_string())

# %%
# Labels are coordinates, so that one edge is selected by its name.

effect = idata["relevance"]["inputs_effect"].sel(inputs_edge="weak")
print(effect.mean(("chain", "draw")).item(), effect.quantile([0.055, 0.945]).values)

# %%
# How often are two inputs in together? Gates are drawn jointly with the weights.

gates = idata["relevance"]["inputs_gate"].stack(sample=("chain", "draw"))
print((gates.sel(inputs_edge="weak") * gates.sel(inputs_edge="noise 1")).mean().item())

# %%
# Figures take the same object.

figure = pr.plots.relevance(idata)

# %%
# Leave-one-out cross-validation works on the pointwise log likelihood. With point weights it means little, since
# the rows were fitted; pass ``held_out=`` to ``to_arviz`` there.

print(az.loo(idata))
