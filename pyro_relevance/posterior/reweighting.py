r"""Gates of a linear model re-weighted by their exact marginal likelihood: dependent inclusions.

Gates that are independent of each other cannot say that one of two correlated inputs is needed. In
a model that is linear in its weights, with Gaussian weights and noise, weights can be averaged out
in closed form for given gates. Gate vectors drawn from a fitted guide are then re-weighted by

.. math::
    r_s = \frac{p(y \mid \gamma_s)\, p(\gamma_s)}{q(\gamma_s)}, \qquad \gamma_s \sim q

and the largest ratios are smoothed. The shape :math:`\hat k` of their tail says whether the
proposal was good enough (Vehtari, Simpson, Gelman, Yao, Gabry, Pareto smoothed importance sampling,
JMLR 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from pyro_relevance._random import seeded, substream
from pyro_relevance.edges.gates import EntryGates
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.likelihoods import Gaussian
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import GaussianWeights
from pyro_relevance.posterior.evaluation import chain_likelihood, quiet
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["ReweightedInclusion", "pareto_smoothed", "reweighted_inclusion"]


@dataclass(frozen=True, slots=True, eq=False)
class ReweightedInclusion:
    """Inclusion probabilities under re-weighted gates, and whether to believe them.

    Args:
        inclusion_probability: Group -> ``(*group.shape)``.
        pareto_k: Shape of the tail of the ratios. Above 0.7 the result is not reliable, unless the
            effective sample size is near the number of draws: gates are discrete, and where ratios
            hardly differ the shape of what differs says little.
        effective_sample_size: Of the weighted draws. Below a twentieth of their number the result
            is not reliable at any shape, which knows nothing of gates that are hardly ever drawn.
    """

    inclusion_probability: dict[str, Tensor]
    pareto_k: float
    effective_sample_size: float


def reweighted_inclusion(
    posterior: Posterior,
    x: Tensor,
    y: Tensor,
    *,
    chain: int = 0,
    num_samples: int = 4000,
    seed: int = 0,
) -> ReweightedInclusion:
    """Re-weight the gates of a fitted linear model, weights averaged out exactly.

    It computes in float64, in time of ``num_samples`` times the cube of the number of weights. The
    noise scale is the fitted one.

    Args:
        posterior: Fitted with independent gates (`SpikeAndSlabGuide` proposes best), a gate prior
            of fixed odds, `GaussianWeights` and `Gaussian` noise, over a network that is linear in
            its weights.
        x: ``(num_data, ...)`` inputs that it was fitted to, all of them.
        y: ``(num_data,)`` their targets.
        chain: The chain whose guide proposes.
        num_samples: Gate vectors that are drawn.
        seed: Seed of the draws.

    Raises:
        ValueError: If the model is of another kind, or the data are not those of the fit.
    """
    model = posterior.model
    _check(posterior, x)
    log_odds = _log_odds(posterior, chain)
    with quiet(model), seeded(substream(seed, "reweighting", chain), posterior.device):
        uniform = torch.rand(num_samples, len(log_odds), dtype=torch.float64).to(log_odds)
        design, scale = _design(model, x.double())
    gates = (uniform < torch.sigmoid(log_odds)).double()
    likelihood = chain_likelihood(model, {n: t[chain] for n, t in posterior.state.items()})
    assert isinstance(likelihood, Gaussian)  # checked
    noise = float(likelihood.location_and_scale(torch.zeros(1, 1).to(x))[1].detach())
    used = _entries(model, gates)
    log_ratio = _log_marginal(design, y.double(), used, scale, noise)
    log_ratio = log_ratio + gates @ (model.prior_log_odds.double() - log_odds)
    log_weight, shape = pareto_smoothed(log_ratio)
    weight = log_weight.softmax(0)
    probability = model.edges.split(weight @ gates)
    return ReweightedInclusion(probability, shape, float(1 / weight.square().sum()))


def pareto_smoothed(log_ratio: Tensor) -> tuple[Tensor, float]:
    r"""Return log weights whose largest values follow a Pareto tail, and its shape.

    Args:
        log_ratio: ``(num_samples,)`` logarithms of importance ratios, at least 25.

    Returns:
        ``(num_samples,)`` smoothed log weights, not normalised, and :math:`\hat k`; minus infinity
        where no ratio is smaller than those of the tail, so that there is none.

    Raises:
        ValueError: If there are fewer.

    References:
        Zhang and Stephens, A new and efficient estimation method for the generalized Pareto
        distribution, Technometrics 2009; Vehtari et al., JMLR 2024, algorithm 1.
    """
    size = len(log_ratio)
    if size < 25:
        raise ValueError(f"Expected at least 25 draws for the shape of a tail, but got {size}.")
    log_ratio = log_ratio - log_ratio.max()
    length = math.ceil(min(0.2 * size, 3 * size**0.5))
    ordered, index = log_ratio.sort()
    # Gates are discrete, and ratios repeat: the tail has all copies of its smallest one.
    below = ordered < ordered[-length] - 1e-9
    start = int(below.sum())
    if start == 0:
        return log_ratio, -math.inf
    length, cutoff = size - start, math.exp(float(ordered[start - 1]))
    shape, scale = _pareto(ordered[start:].exp() - cutoff)
    quantile = (torch.arange(length).to(ordered) + 0.5) / length
    tail = -torch.log1p(-quantile)
    # The quantile function of the generalised Pareto distribution; exponential where shape is 0.
    tail = tail if abs(shape) < 1e-12 else torch.expm1(shape * tail) / shape
    smoothed = log_ratio.clone()
    smoothed[index[start:]] = (scale * tail + cutoff).log().clamp(max=0.0)
    return smoothed, shape


def _pareto(excess: Tensor) -> tuple[float, float]:
    """Return shape and scale of the generalised Pareto distribution of sorted excesses."""
    size = len(excess)
    number = 30 + int(size**0.5)
    steps = torch.arange(1, number + 1).to(excess)
    quartile = excess[int(size / 4 + 0.5) - 1]
    rate = (1 - (number / (steps - 0.5)).sqrt()) / (3 * quartile) + 1 / excess[-1]
    shape = torch.log1p(-rate[:, None] * excess).mean(1)
    profile = size * ((-rate / shape).log() - shape - 1)
    mean_rate = profile.softmax(0) @ rate
    found = float(torch.log1p(-mean_rate * excess).mean())
    scale = -found / float(mean_rate)
    return (size * found + 5.0) / (size + 10.0), scale  # a weak prior at 1/2


def _check(posterior: Posterior, x: Tensor) -> None:
    model, likelihood = posterior.model, posterior.model.likelihood
    fits = (
        model.has_gates
        and not model.has_operations
        and answers(posterior.guide).independent_gates
        and model.gate_prior is not None
        and not model.gate_prior.latents(model.edges)
        and type(model.weight_prior) is GaussianWeights
        and type(likelihood) is Gaussian
        and not likelihood.heteroscedastic
        and likelihood.num_targets == 1
    )
    if not fits:
        raise ValueError(
            "Expected independent gates with fixed prior odds over GaussianWeights and Gaussian "
            f"noise of one target, but got {type(posterior.guide).__name__}, {model.gate_prior!r}, "
            f"{model.weight_prior!r} and {type(likelihood).__name__}. Only then weights can be "
            "averaged out."
        )
    if len(x) != model.num_data:
        raise ValueError(
            f"Expected the {model.num_data} examples that were fitted, but got {len(x)}. The "
            "marginal likelihood is that of all of them."
        )


def _log_odds(posterior: Posterior, chain: int) -> Tensor:
    probability = posterior.chain(chain).inclusion_probability()
    joined = posterior.edges.join({name: p[0] for name, p in probability.items()})
    return joined.double().clamp(1e-9, 1 - 1e-9).logit()


def _design(model: RelevanceModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(num_data, num_weights)`` derivatives of the outputs, and each prior scale."""
    shapes = {name: p.shape for name, p in model.network.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    buffers = {
        n: b.double() if b.is_floating_point() else b for n, b in model.network.named_buffers()
    }

    def outputs(weights: Tensor) -> Tensor:
        parts = zip(shapes.items(), weights.split(sizes), strict=True)
        tensors: dict[str, Any] = {name: part.view(shape) for (name, shape), part in parts}
        found: Tensor = functional_call(model.network, {**buffers, **tensors}, (x,))
        return found.squeeze(-1)

    some = torch.linspace(-1.0, 1.0, sum(sizes), dtype=x.dtype, device=x.device)
    design: Tensor = jacrev(outputs)(some)
    if not torch.allclose(design @ some, outputs(some), atol=1e-8):
        raise ValueError(
            "Expected a network that is linear in its weights (one linear layer), but its outputs "
            "are not. For other networks weights cannot be averaged out exactly."
        )
    prior = model.weight_prior
    assert isinstance(prior, GaussianWeights)
    given = prior.scale
    scales = [given[name] if not isinstance(given, int | float) else given for name in shapes]
    scale = torch.cat([design.new_full((n,), s) for n, s in zip(sizes, scales, strict=True)])
    return design, scale


def _entries(model: RelevanceModel, gates: Tensor) -> Tensor:
    """Return which weights are used, ``(num_samples, num_weights)``."""
    entry_gates = EntryGates(model.edges, [name for name, _ in model.network.named_parameters()])
    return torch.vmap(entry_gates.use)(gates)


def _log_marginal(design: Tensor, y: Tensor, used: Tensor, scale: Tensor, noise: float) -> Tensor:
    """Return log p(y | gates) of each draw up to a constant, ``(num_samples,)``."""
    # Weights in units of their prior: the precision is I + U D^T D U / noise^2.
    design = design * scale / noise
    gram, projection = design.T @ design, design.T @ y / noise
    values = []
    for block in used.split(256):
        precision = block[:, :, None] * gram * block[:, None, :]
        factor = torch.linalg.cholesky(precision + torch.eye(len(gram)).to(gram))
        solved = torch.linalg.solve_triangular(factor, (block * projection)[..., None], upper=False)
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        values.append(0.5 * solved.squeeze(-1).square().sum(1) - log_det)
    return torch.cat(values)
