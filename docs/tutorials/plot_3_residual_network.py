"""Channels of a network from torchvision
======================================

Any network that ``torch.export`` can trace will do, trained or not. Here it is a residual network of torchvision's own
blocks with random weights, on the digits of scikit-learn as colour images of 32 x 32 pixels.

With pretrained weights and images of your own the first lines are::

    network = torchvision.models.resnet18(weights="IMAGENET1K_V1")  # downloads the weights once
    x, y, names = pr.images.image_folder("photos")  # photos/<class>/<image>.jpg, of one size
    x = pr.images.standardise(x, mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225))

and ``pr.fit(..., initial_weights="network")`` makes further chains start from these weights, too.
"""

import torch
from sklearn.datasets import load_digits
from torchvision.models.resnet import BasicBlock, ResNet

import pyro_relevance as pr

images, labels = load_digits(return_X_y=True)
small_images = torch.tensor(images / 16 - 0.5, dtype=torch.float32).reshape(-1, 1, 8, 8)
x = torch.nn.functional.interpolate(small_images, size=32).expand(-1, 3, -1, -1).contiguous()
y = torch.tensor(labels)

torch.manual_seed(0)
network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)

# %%
# What can be removed?
# --------------------
# Channels that residual sums tie together are one edge. With an example input, ``find_edges`` follows the channels
# through all layers.

edges = pr.find_edges(network, example_input=x[:1])
print(edges)

# %%
# A short fit
# -----------
# Very short, to keep this page fast.

model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Categorical(),
    num_data=600,
    gate_prior=pr.priors.IndependentPrior(-4.0),
)
fit = pr.fit(
    model,
    (x[:600], y[:600]),
    num_epochs=2,
    batch_size=80,
    learning_rate=1e-3,
    gate_learning_rate=5e-2,
    seed=0,
)

# %%
# A budget
# --------
# Keep the channels that are most probably relevant, within eight million multiply-accumulates, about half of them.

mask = pr.masks.budget(fit.posterior, num_macs=8_000_000)
small = pr.prune(fit.posterior.network(), edges, mask, example_input=x[:32])
print(small.receipt)

# %%
# Channels by layer, before and after:

from matplotlib.figure import Figure  # noqa: E402

figure = Figure(figsize=(6.5, 3.2), layout="constrained")
axes = figure.subplots()
names = list(edges.names)
axes.barh(names, [edges[name].num_edges for name in names], color="lightgrey", label="before")
axes.barh(names, [int(mask[name].sum()) for name in names], height=0.5, label="kept")
axes.invert_yaxis()
axes.set_xlabel("Channels")
axes.legend()

# %%
# What is left is a plain module: a file for use without this library, and one that this library reads back.

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

folder = Path(tempfile.mkdtemp())
small.save(folder / "small.safetensors")
pr.export_torch(small, folder / "small.pt2", example_input=x[:32])
again = torch.export.load(folder / "small.pt2").module()
print(float((again(x[:32]) - small.eval()(x[:32])).abs().max()))
