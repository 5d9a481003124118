"""``pareto``: methods by what they cost
=====================================

``pyro-relevance compare`` draws this figure from its record. Here the record has three methods and two seeds, each with one second.
"""

import torch

import pyro_relevance as pr
from pyro_relevance import baselines

torch.manual_seed(0)
x = torch.randn(500, 8)
y = torch.sin(x[:, 0]) + x[:, 1] + 0.2 * torch.randn(500)
recipe = baselines.Recipe(pr.likelihoods.Gaussian(0.3), learning_rate=5e-3)


def metrics(density, seed):
    """Return error, size and time of magnitude pruning to a density."""
    torch.manual_seed(seed)
    result = baselines.magnitude_pruning(
        lambda: pr.networks.MLP(8, [30], 1),
        (x[:400], y[:400]),
        recipe=recipe,
        density=density,
        num_epochs=20,
        num_epochs_round=5,
    )
    with torch.no_grad():
        rmse = float((result.network(x[400:])[:, 0] - y[400:]).square().mean().sqrt())
    minutes = sum(result.seconds.values()) / 60
    return {"rmse": rmse, "num_parameters": result.cost.num_parameters, "minutes": minutes}


def row(density):
    """Return the row of a record: mean, standard error and values over seeds."""
    runs = [metrics(density, seed) for seed in (0, 1)]
    found = {}
    for name in runs[0]:
        values = torch.tensor([float(run[name]) for run in runs])
        found[name] = {
            "mean": float(values.mean()),
            "se": float(values.std() / 2**0.5),
            "values": values.tolist(),
        }
    return {"method": f"magnitude, density {density:g}", "metrics": found}


record = {"rows": [row(density) for density in (0.1, 0.3, 0.6)]}

# %%

figure = pr.plots.pareto(record)
