"""Small images: which pixels and hidden units?
============================================

The digits of scikit-learn: 1,797 images of 8 x 8 pixels. A network with two hidden layers has a latent gate on
each pixel and on each hidden unit. After the fit, what is probably not needed is removed.
"""

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import pyro_relevance as pr

images, labels = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32)
y = torch.tensor(labels)
train, test = pr.tables.split_rows(len(x), test_fraction=0.2, seed=0)

# %%
# The model
# ---------
# ``find_edges`` lists what can be removed exactly, and everything else with the reason.

torch.manual_seed(0)
network = pr.networks.MLP(64, [60, 30], 10)
edges = pr.find_edges(
    network,
    granularity=("input", "unit"),
    input_labels=[f"row {i // 8}, column {i % 8}" for i in range(64)],
)
print(edges)

# %%
# A prior log-odds of -8 nats means: keep an edge only if it explains eight nats of the data. A step is one
# draw of the gates and one minibatch; ``noise="per_example"`` draws gates for each image, which has less variance.

model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Categorical(),
    num_data=len(train),
    gate_prior=pr.priors.IndependentPrior(-8.0),
)
fit = pr.fit(
    model,
    (x[train], y[train]),
    num_epochs=60,
    batch_size=128,
    learning_rate=5e-3,
    gate_learning_rate=5e-2,
    noise="per_example",
    seed=0,
)
print(pr.diagnose(fit, held_out=(x[test], y[test])))

# %%
# Look before you cut
# -------------------
# The posterior probability that a pixel is read, as an image. The corners are always white in these data.

probability = fit.posterior.inclusion_probability()
pixels = Figure(figsize=(4.2, 3.2), layout="constrained")
axes = pixels.subplots()
shown = axes.imshow(probability["inputs"][0].reshape(8, 8), vmin=0, vmax=1, cmap="viridis")
pixels.colorbar(shown, ax=axes, label="Inclusion probability")
axes.set(xlabel="Column", ylabel="Row")

# %%
# Prune, exactly
# --------------
# The mask says what is kept and with which risk, as the posterior sees it. ``prune`` compares the small network
# with the masked one and gives a receipt.

mask = pr.masks.median_probability(fit.posterior)
print(mask)
small = pr.prune(fit.posterior.network(), edges, mask, example_input=x[test])
print(small.receipt)


def error(net):
    """Return the share of wrong digits, in per cent."""
    with torch.no_grad():
        return 100 * float((net(x[test]).argmax(1) != y[test]).float().mean())


print(f"test error: dense {error(fit.posterior.network()):.1f} %, small {error(small):.1f} %")

# %%
# Train it further, if wanted
# ---------------------------
# Report it apart: these weights are no longer those of the posterior.

better = pr.fine_tune(
    small,
    (x[train], y[train]),
    likelihood=pr.likelihoods.Categorical(),
    num_data=len(train),
    num_epochs=20,
    learning_rate=1e-3,
).network
print(f"after further training: {error(better):.1f} %")
