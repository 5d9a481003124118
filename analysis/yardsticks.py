"""Plain yardsticks on regression tables, reported beside the library's own results.

Each function takes training and test sets in original units, chooses its settings on validation
data inside each training set, and uses the test rows once. The network baselines train all splits
together as stacked parameters.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import LassoCV
from sklearn.model_selection import KFold
from torch import Tensor

from pyro_relevance import likelihoods, priors, schedules
from pyro_relevance.data.networks import MLP
from pyro_relevance.edges.find import find_edges
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.svi import fit

__all__ = ["BOSTON_TAUS", "gradient_boosting", "lasso", "mc_dropout", "mean_field_gaussian"]

Array = NDArray[np.float64]
Split = tuple[Array, Array, Array, Array]
"""``x_train`` (rows, inputs), ``y_train`` (rows,), ``x_test``, ``y_test`` in original units; rows
in random order."""

BOSTON_TAUS = (0.1, 0.15, 0.2)
"""Noise precisions that the published grid search tries on Boston, in 1 / (1000 $)^2."""

RELATIVE_TAUS = (1.0, 1.5, 2.0)
"""The same for any table, times the cross-validated squared error, which is about 10 on Boston."""

MAX_STEPS = 16_000
"""Steps of a dropout network, at most: 4,000 epochs on a Boston training set, fewer on others."""

BATCH_SIZE = 128
NUM_FOLDS = 5
MAX_TREES = 300
LARGE = 2000  # training rows above which boosting uses binned features


def mc_dropout(
    splits: Sequence[Split],
    *,
    hidden: int = 50,
    num_epochs: int = 4000,
    dropout_rates: Sequence[float] = (0.005, 0.01, 0.05, 0.1),
    taus: Sequence[float] | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Dropout at test time, one hidden layer, by the published protocol with clean grid search.

    The last fifth of the training rows chooses rate and precision by log likelihood

        log 1/T sum_t N(y | f(x; mask_t), 1 / tau),

    then a new network is trained on the whole training set. The precision enters the training only
    through the weight decay ``1e-4 (1 - rate) / (2 N tau)`` (tau in original units, the error in
    standardised ones), which is below 1e-5 on the standard sets; so one network for each rate,
    trained at the middle of the grid, is scored under every precision. The refit uses the chosen
    one.

    Args:
        splits: Training and test sets, of the same shapes.
        hidden: Hidden units (ReLU), with dropout on inputs and hidden units.
        num_epochs: Epochs, at most ``MAX_STEPS`` steps.
        dropout_rates: Grid of rates.
        taus: Grid of noise precisions in original units, ``BOSTON_TAUS`` for the published one.
            ``None`` for ``RELATIVE_TAUS`` over the squared error of a pilot: networks with the
            middle rate and a quarter of the steps, cross-validated in each training set. A wide
            grid is no substitute: a fifth of a small set tells the precision badly.
        num_samples: Masks for each prediction.
        seed: Seed of a generator of its own.

    Returns:
        Results by split; ``num_parameters`` counts weights and biases, not the precision.

    References:
        Gal & Ghahramani, Dropout as a Bayesian approximation, ICML 2016; Mukhoti, Stenetorp & Gal,
        On the importance of strong baselines in Bayesian deep learning, 2018.
    """
    started = time.perf_counter()
    _check(splits)
    generator = torch.Generator().manual_seed(seed)
    inner = [_validation(split) for split in splits]
    if taus is None:
        middle = dropout_rates[len(dropout_rates) // 2]
        error = _pilot_error(splits, hidden, middle, num_epochs // 4, generator)
        grid = torch.tensor(RELATIVE_TAUS, dtype=torch.float64) / error[:, None]
    else:
        grid = torch.tensor(taus, dtype=torch.float64).repeat(len(splits), 1)  # (split, tau)
    num_rates, num_splits = len(dropout_rates), len(splits)
    rates = torch.tensor(dropout_rates).repeat_interleave(num_splits)
    networks = _DropoutNetworks(inner * num_rates, hidden, rates, generator)
    networks.train(grid[:, grid.shape[1] // 2].repeat(num_rates), num_epochs)
    scores = networks.score(grid.repeat(num_rates, 1), num_samples)[1]
    scores = scores.reshape(num_rates, num_splits, -1).movedim(0, 1).flatten(1)
    best = scores.argmax(1)
    rate = torch.tensor(dropout_rates)[best // grid.shape[1]]
    tau = grid.gather(1, (best % grid.shape[1])[:, None])
    networks = _DropoutNetworks(splits, hidden, rate, generator)
    steps = networks.train(tau[:, 0], num_epochs)
    rmse, log_likelihood = networks.score(tau, num_samples)
    settings = {
        "dropout_rate": [dropout_rates[i // grid.shape[1]] for i in best.tolist()],
        "tau": tau[:, 0].tolist(),
        "tau_grid": grid.tolist(),
        "num_steps": steps,
        "num_samples": num_samples,
    }
    count = sum(p[0].numel() for p in networks.parameters)
    results = zip(rmse.tolist(), log_likelihood[:, 0].tolist(), strict=True)
    return _result([(r, ll, count) for r, ll in results], started, settings)


def _pilot_error(
    splits: Sequence[Split],
    hidden: int,
    rate: float,
    num_epochs: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the cross-validated squared error in each training set, ``(split,)``."""
    folds = [fold for split in splits for fold in _folds(split)]
    networks = _DropoutNetworks(folds, hidden, torch.full((len(folds),), rate), generator)
    no_decay = torch.full((len(folds),), math.inf)
    networks.train(no_decay, num_epochs, max_steps=MAX_STEPS // 4)
    rmse, _ = networks.score(torch.ones(len(folds), 1), 100)
    return rmse.square().reshape(len(splits), NUM_FOLDS).mean(1)


class _DropoutNetworks:
    """One network for each chain: stacked parameters, a data set and a dropout rate for each.

    Weights start as in Glorot & Bengio (uniform), biases at zero.
    """

    def __init__(
        self, splits: Sequence[Split], hidden: int, rates: Tensor, generator: torch.Generator
    ) -> None:
        parts = [_standardised(split) for split in splits]
        self.x, self.y, self.x_test = (torch.stack([p[i] for p in parts]) for i in range(3))
        self.y_test = torch.tensor(np.stack([split[3] for split in splits]))
        self.centre = torch.tensor([[split[1].mean()] for split in splits])
        self.scale = torch.tensor([[split[1].std()] for split in splits])
        self.rates = rates[:, None, None].float()
        self.generator = generator
        chains, inputs = len(splits), self.x.shape[2]

        def glorot(fan_in: int, fan_out: int) -> Tensor:
            limit = math.sqrt(6 / (fan_in + fan_out))
            draws = torch.rand(chains, fan_in, fan_out, generator=generator)
            return ((2 * draws - 1) * limit).requires_grad_()

        self.weights = [glorot(inputs, hidden), glorot(hidden, 1)]
        self.biases = [torch.zeros(chains, 1, n, requires_grad=True) for n in (hidden, 1)]

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters, each ``(chain, ...)``."""
        return [*self.weights, *self.biases]

    def train(self, taus: Tensor, num_epochs: int, max_steps: int = MAX_STEPS) -> int:
        """Train with weight decay by ``(chain,)`` precisions; return the number of steps."""
        chains, rows = self.y.shape
        decay = 1e-4 * (1 - self.rates[:, 0, 0]) / (2 * rows * taus.float())
        optimizer = torch.optim.Adam(self.parameters, lr=1e-3, eps=1e-7, fused=True)
        which = torch.arange(chains)[:, None]
        steps = -(-rows // BATCH_SIZE)
        epochs = max(1, min(num_epochs, max_steps // steps))
        for _ in range(epochs):
            order = torch.rand(chains, rows, generator=self.generator).argsort(1)
            for batch in order.split(BATCH_SIZE, dim=1):
                error = self.forward(self.x[which, batch]) - self.y[which, batch]
                norm = sum(w.square().sum((1, 2)) for w in self.weights)
                loss = (error.square().mean(1) + decay * norm).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return epochs * steps

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(chain, rows)`` outputs of ``(chain, rows, inputs)`` under new masks."""
        h = torch.baddbmm(self.biases[0], x * self.mask(x.shape), self.weights[0]).relu()
        h = h * self.mask(h.shape)
        return (h * self.weights[1].mT).sum(2) + self.biases[1][:, :, 0]

    def mask(self, shape: torch.Size) -> Tensor:
        """Return kept entries scaled to mean one; the rate is rounded to a multiple of 2^-16."""
        limit = 2**15  # 16 random bits for each entry: random numbers are most of the work
        words = torch.randint(
            -(2**63), 2**63 - 1, (-(-shape.numel() // 4),), generator=self.generator
        )
        threshold = (self.rates * 2 * limit - limit).round().to(torch.int16)
        kept = words.view(torch.int16)[: shape.numel()].view(shape) >= threshold
        return kept.float() / (1 - self.rates)

    @torch.no_grad()
    def score(self, taus: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
        """Return the error of the mean and the log likelihood of the test rows.

        Args:
            taus: ``(chain, tau)`` precisions.
            num_samples: Number of masks.

        Returns:
            RMSE ``(chain,)`` in original units, and ``(chain, tau)`` nats per row.
        """
        total = torch.zeros_like(self.y_test)
        evidence = torch.full((*taus.shape, self.y_test.shape[1]), -math.inf)
        half = 0.5 * taus[:, :, None].float()
        for _ in range(num_samples):
            output = self.forward(self.x_test) * self.scale + self.centre
            total += output
            squared = (self.y_test - output).square().float()
            evidence = torch.logaddexp(evidence, -half * squared[:, None])
        rmse = (total / num_samples - self.y_test).square().mean(1).sqrt()
        constant = 0.5 * (taus / (2 * math.pi)).log() - math.log(num_samples)
        return rmse, evidence.double().mean(2) + constant


def mean_field_gaussian(
    splits: Sequence[Split],
    *,
    hidden: int = 50,
    prior_scales: Sequence[float] = (1.0, 2.0, 4.0),
    num_steps: int = 6000,
    num_samples: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean-field Gaussian network fitted by the library, without gates and with learned noise.

    Args:
        splits: Training and test sets, of the same shapes.
        hidden: Hidden units (ReLU).
        prior_scales: Candidates for the prior standard deviation of a weight, times the square root
            of its layer's inputs (of a bias: as it is); the last fifth of the training rows
            chooses by log likelihood.
        num_steps: Steps of Adam.
        num_samples: Draws for each prediction.
        seed: Seed of the run.

    Returns:
        Results by split; ``num_parameters`` counts a mean and a standard deviation for each weight
        and bias, not the noise scale.
    """
    started = time.perf_counter()
    _check(splits)

    def evaluate(sets: Sequence[Split], scale: float) -> list[tuple[float, float, float]]:
        posterior = _fit_gaussian(sets, hidden, scale, num_steps, seed)
        found = []
        for i, split in enumerate(sets):
            _, _, x, y = _standardised(split)
            chain, unit = posterior.chain(i), float(split[1].std())
            mean = chain.predict(x, num_samples=num_samples, seed=seed).outputs[0, :, :, 0].mean(0)
            ll = chain.log_likelihood(x, y, num_samples=num_samples, seed=seed)[0].double()
            ll = torch.logsumexp(ll, 0).mean() - math.log(num_samples * unit)
            rmse = float((mean - y).square().mean().sqrt()) * unit
            count = sum(p.numel() for p in posterior.model.network.parameters())
            found.append((rmse, float(ll), 2.0 * count))
        return found

    inner = [_validation(split) for split in splits]
    scores = np.array([[ll for _, ll, _ in evaluate(inner, scale)] for scale in prior_scales])
    chosen = scores.argmax(0)
    values = [(math.nan, math.nan, math.nan)] * len(splits)
    for index in sorted(set(chosen.tolist())):
        which = np.flatnonzero(chosen == index).tolist()
        found = evaluate([splits[i] for i in which], prior_scales[index])
        for i, value in zip(which, found, strict=True):
            values[i] = value
    settings = {
        "prior_scale": [prior_scales[i] for i in chosen],
        "validation_log_likelihood": scores.T.tolist(),
        "num_steps": num_steps,
        "num_samples": num_samples,
    }
    return _result(values, started, settings)


def _fit_gaussian(
    sets: Sequence[Split], hidden: int, scale: float, num_steps: int, seed: int
) -> Posterior:
    """Fit one chain to each training set, standardised."""
    data = [_standardised(split)[:2] for split in sets]
    num_data, num_inputs = data[0][0].shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(num_inputs, (hidden,), 1)
    scales = {
        name: scale / math.sqrt(parameter.shape[1]) if parameter.ndim == 2 else scale
        for name, parameter in network.named_parameters()
    }
    model = RelevanceModel(
        network,
        find_edges(network),
        likelihood=likelihoods.Gaussian(0.3),
        num_data=num_data,
        gate_prior=None,
        weight_prior=priors.GaussianWeights(scales, initial_scale=0.02),
    )
    return fit(
        model,
        data,
        num_epochs=max(1, num_steps // -(-num_data // BATCH_SIZE)),
        batch_size=BATCH_SIZE,
        learning_rate=1e-2,
        schedules=schedules.Schedules(
            kl_weight=schedules.warmup(0.1),
            learning_rate=schedules.within(schedules.cosine(1.0, 0.01), start=0.5),
        ),
        num_chains=len(data),
        seed=seed,
    ).posterior


def lasso(splits: Sequence[Split]) -> dict[str, Any]:
    """Linear regression with an L1 penalty chosen by cross-validation.

    The noise is Gaussian, with the mean squared error of the held-out folds as its variance.

    Args:
        splits: Training and test sets.

    Returns:
        Results by split; ``num_parameters`` counts the intercept and the coefficients that are not
        zero, not the noise scale.
    """
    started = time.perf_counter()
    values, penalties = [], []
    for split in splits:
        x, y, x_test, _ = (part.double().numpy() for part in _standardised(split))
        folds = KFold(NUM_FOLDS, shuffle=True, random_state=0)
        model = LassoCV(cv=folds, max_iter=100_000).fit(x, y)
        unit = split[1].std()
        prediction = model.predict(x_test) * unit + split[1].mean()
        variance = model.mse_path_.mean(1).min() * unit**2
        penalties.append(float(model.alpha_))
        count = 1 + int(np.count_nonzero(model.coef_))
        values.append((*_gaussian_scores(split[3], prediction, variance), count))
    return _result(values, started, {"penalty": penalties, "num_folds": NUM_FOLDS})


def gradient_boosting(
    splits: Sequence[Split], *, max_depths: Sequence[int] = (3, 5), seed: int = 0
) -> dict[str, Any]:
    """Boosted regression trees; depth and number of trees by cross-validation.

    Shrinkage 0.1 and half of the rows for each tree; above ``LARGE`` training rows trees on binned
    features with all rows. The noise is Gaussian, with the mean squared error of the held-out folds
    as its variance.

    Args:
        splits: Training and test sets.
        max_depths: Candidates for the depth of a tree.
        seed: Seed of folds and trees.

    Returns:
        Results by split; ``num_parameters`` counts two for each stored node (feature and threshold,
        or a value and its place), not the noise scale.
    """
    started = time.perf_counter()
    values, chosen = [], []
    for x, y, x_test, y_test in splits:
        squared = np.zeros((len(max_depths), MAX_TREES))
        for rows, held in KFold(NUM_FOLDS, shuffle=True, random_state=seed).split(x):
            for i, depth in enumerate(max_depths):
                model = _trees(len(x), depth, MAX_TREES, seed, x[rows], y[rows])
                for k, prediction in enumerate(model.staged_predict(x[held])):
                    squared[i, k] += np.square(prediction - y[held]).sum() / len(x)
        best, last = np.unravel_index(squared.argmin(), squared.shape)
        depth, number = max_depths[int(best)], int(last) + 1
        model = _trees(len(x), depth, number, seed, x, y)
        scores = _gaussian_scores(y_test, model.predict(x_test), squared.min())
        values.append((*scores, 2 * _num_nodes(model)))
        chosen.append({"max_depth": depth, "num_trees": number})
    return _result(values, started, {"chosen": chosen, "num_folds": NUM_FOLDS})


def _trees(num_rows: int, depth: int, number: int, seed: int, x: Array, y: Array) -> Any:
    common = {"learning_rate": 0.1, "max_depth": depth, "random_state": seed}
    model: Any = GradientBoostingRegressor(
        n_estimators=number, subsample=0.5, min_samples_leaf=3, **common
    )
    if num_rows > LARGE:
        model = HistGradientBoostingRegressor(max_iter=number, early_stopping=False, **common)
    # Its threads each swap the warning filters for their own, and may leave one behind.
    with warnings.catch_warnings():
        return model.fit(x, y)


def _num_nodes(model: Any) -> int:
    if isinstance(model, GradientBoostingRegressor):
        return sum(tree.tree_.node_count for tree in model.estimators_[:, 0])
    # There is no public way to the nodes of this class.
    return sum(len(tree.nodes) for (tree,) in model._predictors)


def _gaussian_scores(y: Array, prediction: Array, variance: float) -> tuple[float, float]:
    """Return RMSE and mean log density of rows under Gaussian noise."""
    squared = np.square(y - prediction)
    density = -0.5 * (np.log(2 * np.pi * variance) + squared / variance)
    return float(np.sqrt(squared.mean())), float(density.mean())


def _validation(split: Split) -> Split:
    """Return the training set as a split of its own: the last fifth of its rows are held out."""
    x, y, _, _ = split
    rows = int(0.8 * len(x))
    return x[:rows], y[:rows], x[rows:], y[rows:]


def _folds(split: Split) -> list[Split]:
    """Return the training set as splits of its own, of one size; a remainder is never held out."""
    x, y, _, _ = split
    held = np.arange(len(x) // NUM_FOLDS * NUM_FOLDS).reshape(NUM_FOLDS, -1)
    rest = [np.setdiff1d(np.arange(len(x)), rows) for rows in held]
    return [(x[a], y[a], x[b], y[b]) for a, b in zip(rest, held, strict=True)]


def _standardised(split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the parts as float32, standardised with statistics of the training rows."""
    x, y, x_test, y_test = split
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    parts = [(x - mean) / scale, (y - y.mean()) / y.std()]
    parts += [(x_test - mean) / scale, (y_test - y.mean()) / y.std()]
    a, b, c, d = (torch.tensor(part, dtype=torch.float32) for part in parts)
    return a, b, c, d


def _check(splits: Sequence[Split]) -> None:
    shapes = {tuple(part.shape for part in split) for split in splits}
    if len(shapes) != 1:
        raise ValueError(
            f"Expected splits of the same shapes, but got {len(shapes)} different ones. "
            "Pass the standard splits of one data set."
        )


def _result(
    values: Sequence[tuple[float, float, float]], started: float, settings: dict[str, Any]
) -> dict[str, Any]:
    rmse, log_likelihood, count = (list(column) for column in zip(*values, strict=True))
    return {
        "rmse": rmse,
        "test_log_likelihood": log_likelihood,
        "num_parameters": count,
        "seconds": time.perf_counter() - started,
        "settings": settings,
    }
