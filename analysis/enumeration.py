"""Exact posteriors of gates over Gaussian weights, and the best that a family of guides can do.

Everything is float64 and uses nothing of the library. Configurations of the gates are enumerated,
weights are averaged out: in closed form for a linear model under Gaussian noise, by adaptive
Gauss-Hermite quadrature for a logistic one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Exact",
    "Optimum",
    "Problem",
    "ascend",
    "exact_linear",
    "exact_logistic",
    "make_problem",
    "spike_and_slab_elbo",
    "spike_and_slab_optimum",
]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Data drawn from the model that is fitted to them.

    .. math::
        \gamma_j \sim Bernoulli(\pi), \quad w_j \sim N(0, s^2), \quad
        y \sim N(X (\gamma w), \sigma^2) \text{ or } Bernoulli(\sigma(X (\gamma w)))

    Args:
        x: ``(num_data, num_inputs)`` inputs, each pair with the same correlation.
        y: ``(num_data,)`` targets.
        relevant: ``(num_inputs,)`` gates that the data were drawn with.
        log_odds: Prior log-odds of a gate.
        weight_scale: Prior standard deviation of a weight.
        noise_scale: Standard deviation of the noise of a linear model.
    """

    x: Tensor
    y: Tensor
    relevant: Tensor
    log_odds: float
    weight_scale: float
    noise_scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Exact:
    """Posterior of all gates.

    Args:
        inclusion_probability: ``(num_inputs,)``.
        log_evidence: log p(y), in nats.
    """

    inclusion_probability: Tensor
    log_evidence: float

    @classmethod
    def of(cls, log_likelihood: Tensor, gates: Tensor, log_odds: float) -> Exact:
        """Return it from log p(y | gates), ``(num_configurations,)``."""
        prior = gates.sum(1) * log_odds - gates.shape[1] * math.log1p(math.exp(log_odds))
        joint = log_likelihood + prior
        return cls((joint.softmax(0) @ gates).clamp(max=1.0), float(joint.logsumexp(0)))


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best member of the spike-and-slab family, by input, and its ELBO in nats."""

    inclusion_probability: Tensor
    mean: Tensor
    variance: Tensor
    elbo: float


def make_problem(
    num_data: int,
    num_inputs: int,
    correlation: float,
    *,
    seed: int,
    probability: float = 0.3,
    weight_scale: float = 1.0,
    logistic: bool = False,
) -> Problem:
    """Draw a problem; see `Problem`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = (1 - correlation) ** 0.5 * draw(num_data, num_inputs)
    x = x + correlation**0.5 * draw(num_data, 1)
    uniform = torch.rand(num_inputs, generator=generator, dtype=torch.float64)
    relevant = uniform < probability
    signal = x @ (relevant * weight_scale * draw(num_inputs))
    if logistic:
        uniform = torch.rand(num_data, generator=generator, dtype=torch.float64)
        y = (uniform < torch.sigmoid(signal)).double()
    else:
        y = signal + draw(num_data)
    log_odds = math.log(probability / (1 - probability))
    return Problem(x, y, relevant, log_odds, weight_scale)


def configurations(num_gates: int) -> Tensor:
    """Return all gates, ``(2 ** num_gates, num_gates)`` zeros and ones."""
    return ((torch.arange(2**num_gates)[:, None] >> torch.arange(num_gates)) & 1).double()


def exact_linear(problem: Problem) -> Exact:
    r"""Enumerate the gates of a linear model, weights averaged out in closed form.

    .. math::
        \log p(y \mid \gamma) = \log N(y; 0, \sigma^2) + \tfrac{1}{2} b^T A^{-1} b
        - \tfrac{1}{2} \log\det(s^2 A), \qquad
        A = \Gamma X^T X \Gamma / \sigma^2 + I / s^2, \quad b = \Gamma X^T y / \sigma^2
    """
    x, y, scale = problem.x, problem.y, problem.weight_scale
    gates = configurations(x.shape[1])
    precision = gates[:, :, None] * (x.T @ x) * gates[:, None, :] / problem.noise_scale**2
    precision = precision + torch.eye(x.shape[1], dtype=x.dtype) / scale**2
    factor = torch.linalg.cholesky(precision)
    projection = (gates * (x.T @ y) / problem.noise_scale**2)[:, :, None]
    solved = torch.linalg.solve_triangular(factor, projection, upper=False)[..., 0]
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1) + x.shape[1] * math.log(scale)
    noise = torch.distributions.Normal(0.0, problem.noise_scale).log_prob(y).sum()
    return Exact.of(noise + 0.5 * solved.square().sum(1) - log_det, gates, problem.log_odds)


def exact_logistic(problem: Problem, num_nodes: int = 7) -> Exact:
    """Enumerate the gates of a logistic model, weights averaged out by adaptive quadrature.

    Gauss-Hermite nodes are laid around the mode of each configuration by the inverse Hessian there
    (Naylor and Smith, Applications of a method for the efficient computation of posterior
    distributions, Applied Statistics 1982).

    Args:
        problem: The data.
        num_nodes: Nodes along each weight.
    """
    gates = configurations(problem.x.shape[1])
    values = [_log_marginal(problem, chosen > 0, num_nodes) for chosen in gates]
    return Exact.of(torch.stack(values), gates, problem.log_odds)


def _log_marginal(problem: Problem, chosen: Tensor, num_nodes: int) -> Tensor:
    x, y, scale = problem.x[:, chosen], problem.y, problem.weight_scale
    size = x.shape[1]

    def log_joint(weights: Tensor) -> Tensor:
        outputs = weights @ x.T
        fit = (y * outputs - torch.nn.functional.softplus(outputs)).sum(-1)
        prior = torch.distributions.Normal(0.0, scale).log_prob(weights).sum(-1)
        return fit + prior

    mode, hessian = torch.zeros(size, dtype=x.dtype), torch.eye(size, dtype=x.dtype)
    for _ in range(50):
        p = torch.sigmoid(x @ mode)
        hessian = (x.T * (p * (1 - p))) @ x + torch.eye(size, dtype=x.dtype) / scale**2
        mode = mode + torch.linalg.solve(hessian, x.T @ (y - p) - mode / scale**2)
    if size == 0:
        return log_joint(mode)
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = torch.tensor(list(itertools.product(nodes, repeat=size)), dtype=x.dtype)
    log_weights = torch.tensor(
        list(itertools.product(np.log(weights), repeat=size)), dtype=x.dtype
    ).sum(1)
    # w = mode + L^-T z for H = L L^T, so that dw = dz / det L.
    factor = torch.linalg.cholesky(hessian)
    points = mode + torch.linalg.solve_triangular(factor.T, grid.T, upper=True).T
    terms = log_joint(points) + 0.5 * grid.square().sum(1) + log_weights
    return terms.logsumexp(0) - factor.diagonal().log().sum()


def spike_and_slab_optimum(problem: Problem, *, num_restarts: int = 12) -> Optimum:
    """Return the best spike-and-slab posterior of a linear model, by exact coordinate ascent.

    Several starts guard against local optima.
    """
    size = problem.x.shape[1]
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(num_restarts, size, generator=generator, dtype=torch.float64)
    mean = 0.5 * torch.randn(num_restarts, size, generator=generator, dtype=torch.float64)
    p[0], mean[0] = 0.5, 0.0
    found = [ascend(problem, *start) for start in zip(p, mean, strict=True)]
    return max(found, key=lambda optimum: optimum.elbo)


def ascend(problem: Problem, p: Tensor, mean: Tensor, *, num_sweeps: int = 1000) -> Optimum:
    r"""Return the local optimum of the spike-and-slab family above a start.

    .. math::
        s_j^2 = (x_j^T x_j / \sigma^2 + 1 / s^2)^{-1}, \quad
        m_j = s_j^2 x_j^T (y - \sum_{k \ne j} x_k p_k m_k) / \sigma^2, \quad
        \mathrm{logit}\,p_j = \ell + \log(s_j / s) + m_j^2 / 2 s_j^2

    Each update can only raise the ELBO (Carbonetto and Stephens, Bayesian Analysis 2012, eqs. 8 -
    10).

    Args:
        problem: The data, of a linear model.
        p: ``(num_inputs,)`` inclusion probabilities at the start.
        mean: ``(num_inputs,)`` means of the slabs at the start.
        num_sweeps: Rounds over all inputs, at most.
    """
    gram, projection = problem.x.T @ problem.x, problem.x.T @ problem.y
    noise = problem.noise_scale**2
    variance = 1 / (gram.diagonal() / noise + 1 / problem.weight_scale**2)
    evidence = problem.log_odds + 0.5 * (variance / problem.weight_scale**2).log()
    p, mean = p.clone(), mean.clone()
    for _ in range(num_sweeps):
        before = p.clone()
        for j in range(len(gram)):
            others = gram[j] @ (p * mean) - p[j] * mean[j] * gram[j, j]
            mean[j] = variance[j] / noise * (projection[j] - others)
            p[j] = torch.sigmoid(evidence[j] + mean[j] ** 2 / (2 * variance[j]))
        if (p - before).abs().max() < 1e-12:
            break
    return Optimum(p, mean, variance, spike_and_slab_elbo(problem, p, mean, variance))


def spike_and_slab_elbo(problem: Problem, p: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Return the exact ELBO of a spike-and-slab posterior of a linear model, in nats."""
    x, y, scale = problem.x, problem.y, problem.weight_scale
    noise = problem.noise_scale**2
    effect = p * mean
    spread = x.square().sum(0) @ (p * (mean**2 + variance) - effect**2)
    error = (y - x @ effect).square().sum() + spread
    expected = -0.5 * error / noise - 0.5 * len(y) * math.log(2 * math.pi * noise)
    ratio = variance / scale**2
    slab = 0.5 * (ratio + mean**2 / scale**2 - 1 - ratio.log())
    prior = torch.sigmoid(torch.tensor(problem.log_odds, dtype=p.dtype))
    gates = torch.xlogy(p, p / prior) + torch.xlogy(1 - p, (1 - p) / (1 - prior))
    return float(expected - (p * slab).sum() - gates.sum())
