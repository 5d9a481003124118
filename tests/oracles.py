"""Exact posteriors by enumeration of all gates, and closed forms: what fits are compared with.

Everything is float64, and nothing here uses the package: these are second ways of computing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "GatePosterior",
    "bernoulli_elbo",
    "configurations",
    "gaussian_posterior",
    "hierarchical_log_prior",
    "independent_log_prior",
    "log_likelihood_of_fixed_weights",
    "log_likelihood_of_gaussian_weights",
    "mean_field_optimum",
    "orthogonal_design",
]


@dataclass(frozen=True)
class GatePosterior:
    """Posterior of ``num_gates`` binary gates, from the joint density of each configuration.

    Args:
        log_joint: ``(2 ** num_gates,)`` log p(data, gates), in the order of `configurations`.
    """

    log_joint: Tensor

    @property
    def num_gates(self) -> int:
        return self.log_joint.shape[0].bit_length() - 1

    @property
    def log_evidence(self) -> float:
        """log p(data) in nats."""
        return float(self.log_joint.logsumexp(0))

    @property
    def probability(self) -> Tensor:
        """``(2 ** num_gates,)`` posterior probability of each configuration."""
        return self.log_joint.softmax(0)

    @property
    def inclusion_probability(self) -> Tensor:
        """``(num_gates,)`` probability of each gate."""
        return self.probability @ configurations(self.num_gates)

    @property
    def covariance(self) -> Tensor:
        """``(num_gates, num_gates)`` covariance of the gates."""
        gates = configurations(self.num_gates) - self.inclusion_probability
        return (self.probability * gates.T) @ gates


def configurations(num_gates: int) -> Tensor:
    """Return all gates, ``(2 ** num_gates, num_gates)`` zeros and ones."""
    bits = torch.arange(2**num_gates)[:, None] >> torch.arange(num_gates)
    return (bits & 1).double()


def independent_log_prior(log_odds: Tensor) -> Tensor:
    """Return the log prior of each configuration for ``(num_gates,)`` log-odds."""
    log_odds = log_odds.double()
    gates = configurations(log_odds.shape[0])
    return gates @ log_odds - torch.nn.functional.softplus(log_odds).sum()


def hierarchical_log_prior(num_gates: int, a: float, b: float) -> Tensor:
    """Return the log prior of each configuration with a Beta(a, b) rate integrated out."""
    on = configurations(num_gates).sum(1)

    def log_beta(u: Tensor, v: Tensor) -> Tensor:
        return torch.lgamma(u) + torch.lgamma(v) - torch.lgamma(u + v)

    start = log_beta(torch.tensor(a).double(), torch.tensor(b).double())
    return log_beta(on + a, num_gates - on + b) - start


def log_likelihood_of_fixed_weights(
    x: Tensor, y: Tensor, weights: Tensor, noise_scale: float
) -> Tensor:
    """Return log N(y; x (gates * weights), noise_scale^2) of each configuration."""
    means = configurations(x.shape[1]) @ (x * weights).double().T
    error = (y.double() - means).square().sum(1)
    constant = y.shape[0] * math.log(noise_scale * math.sqrt(2 * math.pi))
    return -0.5 * error / noise_scale**2 - constant


def log_likelihood_of_gaussian_weights(
    x: Tensor, y: Tensor, weight_scale: float, noise_scale: float
) -> Tensor:
    """Return log p(y | gates) of each configuration with N(0, weight_scale^2) weights averaged out.

    y ~ N(0, noise_scale^2 I + weight_scale^2 X_g X_g^T), X_g the columns whose gate is on.
    """
    x, y = x.double(), y.double()
    values = []
    for gates in configurations(x.shape[1]):
        chosen = x[:, gates > 0]
        covariance = noise_scale**2 * torch.eye(len(y)).double()
        covariance += weight_scale**2 * chosen @ chosen.T
        normal = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
        values.append(normal.log_prob(y))
    return torch.stack(values)


def gaussian_posterior(
    x: Tensor, y: Tensor, weight_scale: float, noise_scale: float
) -> tuple[Tensor, Tensor, float]:
    """Return mean, covariance and log evidence of linear regression with N(0, s^2) weights."""
    x, y = x.double(), y.double()
    precision = x.T @ x / noise_scale**2 + torch.eye(x.shape[1]).double() / weight_scale**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ x.T @ y / noise_scale**2
    marginal = noise_scale**2 * torch.eye(len(y)).double() + weight_scale**2 * x @ x.T
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(y), marginal)
    return mean, covariance, float(normal.log_prob(y))


def bernoulli_elbo(log_joint: Tensor, log_odds: Tensor) -> Tensor:
    """Return the exact ELBO (nats) of independent gates with ``(num_gates,)`` log-odds.

    ELBO(q) = sum over configurations q(g) (log p(data, g) - log q(g))
    """
    log_odds = log_odds.double()
    log_q = independent_log_prior(log_odds)
    return (log_q.exp() * (log_joint - log_q)).sum()


def mean_field_optimum(
    log_joint: Tensor, *, num_restarts: int = 20, num_sweeps: int = 200
) -> tuple[Tensor, float]:
    """Return the best independent Bernoulli gates found by exact coordinate ascent, and their ELBO.

    log-odds_e <- E[log p(data, g, g_e = 1) - log p(data, g, g_e = 0)], over the other gates.

    Each sweep can only raise the ELBO; several starts guard against local optima.
    """
    gates = configurations(log_joint.shape[0].bit_length() - 1)
    num_gates = gates.shape[1]
    generator = torch.Generator().manual_seed(0)
    best, best_elbo = torch.zeros(num_gates).double(), -math.inf
    for _ in range(num_restarts):
        log_odds = 3 * torch.randn(num_gates, generator=generator, dtype=torch.float64)
        for _ in range(num_sweeps):
            before = log_odds.clone()
            for e in range(num_gates):
                others = log_odds.clone()
                others[e] = 0.0
                weight = 2 * independent_log_prior(others).exp()
                log_odds[e] = (weight * log_joint * (2 * gates[:, e] - 1)).sum()
            if (log_odds - before).abs().max() < 1e-10:
                break
        elbo = float(bernoulli_elbo(log_joint, log_odds))
        if elbo > best_elbo:
            best, best_elbo = log_odds, elbo
    return best, best_elbo


def orthogonal_design(num_data: int, num_columns: int) -> Tensor:
    """Return ``(num_data, num_columns)`` inputs with X^T X = num_data * identity."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(num_data, num_columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(draws)[0] * num_data**0.5
