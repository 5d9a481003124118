"""A mean-field Gaussian network, fitted by the library without gates and with learned noise."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from analysis.splits import RawSplit, standardised
from analysis.yardsticks.protocol import check_shapes, result_of, validation
from pyro_relevance import likelihoods, priors, schedules
from pyro_relevance.data.networks import MLP
from pyro_relevance.edges.find import find_edges
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.svi import fit

__all__ = ["mean_field_gaussian"]

BATCH_SIZE = 128


def mean_field_gaussian(
    splits: Sequence[RawSplit],
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
    check_shapes(splits)

    def evaluate(sets: Sequence[RawSplit], scale: float) -> list[tuple[float, float, float]]:
        posterior = _fit_gaussian(sets, hidden, scale, num_steps, seed)
        found = []
        for i, split in enumerate(sets):
            _, _, x, y = standardised(split)
            chain, unit = posterior.chain(i), float(split[1].std())
            mean = chain.predict(x, num_samples=num_samples, seed=seed).outputs[0, :, :, 0].mean(0)
            ll = chain.log_likelihood(x, y, num_samples=num_samples, seed=seed)[0].double()
            ll = torch.logsumexp(ll, 0).mean() - math.log(num_samples * unit)
            rmse = float((mean - y).square().mean().sqrt()) * unit
            count = sum(p.numel() for p in posterior.model.network.parameters())
            found.append((rmse, float(ll), 2.0 * count))
        return found

    inner = [validation(split) for split in splits]
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
    return result_of(values, started, settings)


def _fit_gaussian(
    sets: Sequence[RawSplit], hidden: int, scale: float, num_steps: int, seed: int
) -> Posterior:
    """Fit one chain to each training set, standardised."""
    data = [standardised(split)[:2] for split in sets]
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
