"""Figures of a paper
==================

A plot takes an ArviZ object and returns a matplotlib ``Figure``. It opens no window and leaves matplotlib's settings
alone. :func:`pyro_relevance.plots.save` writes a PDF whose text stays text, and a PNG.
"""

import tempfile
from pathlib import Path

import pyro_relevance as pr

table = pr.datasets.boston()
train, test = pr.tables.split_rows(table.num_rows, seed=0)
encoder = pr.tables.encode(table, train)
x, y = encoder.transform(table.features, table.target)
network = pr.networks.MLP(x.shape[1], [12], 1)
edges = pr.find_edges(network, granularity=("input", "weight"), input_labels=encoder.input_labels)
model = pr.RelevanceModel(
    network,
    edges,
    likelihood=pr.likelihoods.Gaussian(0.2, learn_noise=False),
    num_data=len(train),
    gate_prior=pr.priors.IndependentPrior(-1.5),
    weight_prior=pr.priors.PointWeights(0.3),
)
fit = pr.fit(model, (x[train], y[train]), num_epochs=200, learning_rate=5e-3, num_chains=3, seed=0)
target = pr.report.TargetUnits(encoder.target_mean, encoder.target_scale)
idata = pr.to_arviz(fit.posterior, data=(x[train], y[train]), target=target)

# %%
# How relevant is each input? Dots are means over chains, bars the range, small dots single chains.

forest = pr.plots.relevance(idata)

# %%
# The network of one chain: colour is the probability that a connection is included, removed ones are dashed.

drawing = pr.plots.network(idata, chain=fit.best_chain)

# %%
# Error against size along a rule: what each density would cost, with its band over draws, before anything is cut.

posterior = fit.posterior.chain(fit.best_chain)
masks = pr.masks.path(posterior, num_points=12)
curve = pr.plots.path(pr.rule_path(posterior, masks, (x[test], y[test])))

# %%
# Did the training end? Loss, temperature and expected size by step.

course = pr.plots.training(idata)

# %%
# In a file
# ---------
# Widths are those of a column or of both columns of a paper.

folder = Path(tempfile.mkdtemp())
pdf, png = pr.plots.save(forest, folder / "relevance")
print(pdf.name, pdf.stat().st_size, png.name, png.stat().st_size)
print(pr.plots.SINGLE_COLUMN, pr.plots.DOUBLE_COLUMN, "inches")
