"""Error bounds of statistical tests, from one rate of false alarms."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

FAILURE_RATE = 1e-6  # chance that one statistical test fails although the code is right


def standard_errors(num_comparisons: int = 1) -> float:
    """Return the number of standard errors that a correct mean leaves at the failure rate."""
    return NormalDist().inv_cdf(1 - FAILURE_RATE / (2 * num_comparisons))


def assert_mean(samples: Tensor, expected: Tensor, *, rounding: float = 0.0) -> None:
    """Assert that the mean of ``(num_samples, *shape)`` draws is ``(*shape)`` expected values."""
    samples, expected = samples.double(), expected.double()
    error = samples.std(0) / samples.shape[0] ** 0.5
    distance = (samples.mean(0) - expected).abs()
    allowed = standard_errors(expected.numel()) * error + rounding
    assert bool((distance <= allowed).all()), (distance / error).max()


def assert_frequency(hits: Tensor, probability: Tensor) -> None:
    """Assert that the mean of ``(num_samples, *shape)`` zeros and ones is a probability."""
    hits, probability = hits.double(), probability.double()
    num_samples = hits.shape[0]
    error = (probability * (1 - probability) / num_samples).sqrt()
    # 1 / num_samples: the normal bound is too narrow where less than one hit is expected.
    allowed = standard_errors(probability.numel()) * (error + 1 / num_samples)
    distance = (hits.mean(0) - probability).abs()
    assert bool((distance <= allowed).all()), (distance / allowed).max()


def integrate(values: Tensor, grid: Tensor) -> Tensor:
    """Return the integral over the last dimension by the trapezoid rule."""
    return torch.trapezoid(values, grid, dim=-1)
