"""Monte Carlo dropout by the published protocol, with a clean grid search."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from analysis.splits import RawSplit
from analysis.yardsticks.dropout_networks import MAX_STEPS, DropoutNetworks
from analysis.yardsticks.protocol import NUM_FOLDS, check_shapes, folds_of, result_of, validation

__all__ = ["BOSTON_TAUS", "mc_dropout"]

BOSTON_TAUS = (0.1, 0.15, 0.2)
"""Noise precisions that the published grid search tries on Boston, in 1 / (1000 $)^2."""

RELATIVE_TAUS = (1.0, 1.5, 2.0)
"""The same for any table, times the cross-validated squared error, which is about 10 on Boston."""


def mc_dropout(
    splits: Sequence[RawSplit],
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
            grid is no substitute: a fifth of a small set determines the precision badly.
        num_samples: Masks for each prediction.
        seed: Seed of a generator of its own.

    Returns:
        Results by split; ``num_parameters`` counts weights and biases, not the precision.

    References:
        Gal & Ghahramani, Dropout as a Bayesian approximation, ICML 2016; Mukhoti, Stenetorp & Gal,
        On the importance of strong baselines in Bayesian deep learning, 2018.
    """
    started = time.perf_counter()
    check_shapes(splits)
    generator = torch.Generator().manual_seed(seed)
    inner = [validation(split) for split in splits]
    if taus is None:
        middle = dropout_rates[len(dropout_rates) // 2]
        error = _pilot_error(splits, hidden, middle, num_epochs // 4, generator)
        grid = torch.tensor(RELATIVE_TAUS, dtype=torch.float64) / error[:, None]
    else:
        grid = torch.tensor(taus, dtype=torch.float64).repeat(len(splits), 1)  # (split, tau)
    num_rates, num_splits = len(dropout_rates), len(splits)
    rates = torch.tensor(dropout_rates).repeat_interleave(num_splits)
    networks = DropoutNetworks(inner * num_rates, hidden, rates, generator)
    networks.train(grid[:, grid.shape[1] // 2].repeat(num_rates), num_epochs)
    scores = networks.score(grid.repeat(num_rates, 1), num_samples)[1]
    scores = scores.reshape(num_rates, num_splits, -1).movedim(0, 1).flatten(1)
    best = scores.argmax(1)
    rate = torch.tensor(dropout_rates)[best // grid.shape[1]]
    tau = grid.gather(1, (best % grid.shape[1])[:, None])
    networks = DropoutNetworks(splits, hidden, rate, generator)
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
    return result_of([(r, ll, count) for r, ll in results], started, settings)


def _pilot_error(
    splits: Sequence[RawSplit],
    hidden: int,
    rate: float,
    num_epochs: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the cross-validated squared error in each training set, ``(split,)``."""
    folds = [fold for split in splits for fold in folds_of(split)]
    networks = DropoutNetworks(folds, hidden, torch.full((len(folds),), rate), generator)
    no_decay = torch.full((len(folds),), math.inf)
    networks.train(no_decay, num_epochs, max_steps=MAX_STEPS // 4)
    rmse, _ = networks.score(torch.ones(len(folds), 1), 100)
    return rmse.square().reshape(len(splits), NUM_FOLDS).mean(1)
