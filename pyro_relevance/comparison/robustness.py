r"""How robust a network is to small changes of its weights and inputs, random and adversarial.

Random changes are Gaussian; the worst ones of bounded size follow the gradient of the loss with
respect to the input, in one step (FGSM) or in several that are projected back (PGD):

.. math::
    x \leftarrow \Pi_{|x' - x| \le \epsilon}\,(x + \alpha\, \mathrm{sign} \nabla_x L(x, y))

References:
    Goodfellow, Shlens, Szegedy, Explaining and harnessing adversarial examples, ICLR 2015. Madry,
    Makelov, Schmidt, Tsipras, Vladu, Towards deep learning models resistant to adversarial attacks,
    ICLR 2018, eq. 2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_relevance._random import seeded, substream
from pyro_relevance.edges.modules import evaluating
from pyro_relevance.model.likelihoods import Likelihood

__all__ = ["fgsm", "input_noise", "pgd", "robustness", "weight_noise"]


def weight_noise(network: nn.Module, scale: float, *, seed: int = 0) -> nn.Module:
    """Return a copy whose parameters are changed at random.

    The noise of each tensor has the standard deviation ``scale`` times the root mean square of its
    entries that are not zero; zeros stay, since nothing is there that could change.

    Args:
        network: The network; it is not changed.
        scale: Size of the noise, a share of the weights' own size, >= 0.
        seed: Seed of the noise.

    Raises:
        ValueError: If ``scale`` is negative.
    """
    _check(scale=scale)
    network = copy.deepcopy(network)
    with seeded(substream(seed, "weight noise")), torch.no_grad():
        for parameter in network.parameters():
            kept = parameter != 0
            if not bool(kept.any()):
                continue
            size = parameter[kept].square().mean().sqrt()
            parameter.add_(torch.randn_like(parameter) * kept * (scale * size))
    return network


def input_noise(x: Tensor, scale: float, *, seed: int = 0) -> Tensor:
    """Return inputs with Gaussian noise.

    Args:
        x: ``(num_data, ...)`` inputs.
        scale: Standard deviation of the noise, in the unit of the inputs, >= 0.
        seed: Seed of the noise.

    Raises:
        ValueError: If ``scale`` is negative.
    """
    _check(scale=scale)
    with seeded(substream(seed, "input noise"), x.device):
        return x + scale * torch.randn_like(x)


def fgsm(
    network: nn.Module, likelihood: Likelihood, x: Tensor, y: Tensor, epsilon: float
) -> Tensor:
    """Return inputs that are moved by ``epsilon`` in the direction of the loss.

    Args:
        network: The network.
        likelihood: Distribution of the target, whose negative log density is the loss.
        x: ``(num_data, ...)`` inputs.
        y: ``(num_data, ...)`` targets.
        epsilon: Largest change of each entry, in the unit of the inputs, >= 0.

    Raises:
        ValueError: If ``epsilon`` is negative.
    """
    _check(epsilon=epsilon)
    with evaluating(network):
        return x + epsilon * _gradient(network, likelihood, x, y).sign()


def pgd(
    network: nn.Module,
    likelihood: Likelihood,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    *,
    num_steps: int = 10,
    seed: int = 0,
) -> Tensor:
    """Return inputs that several projected steps have moved by at most ``epsilon``.

    They start at random inside the bound; each step has the size ``2.5 * epsilon / num_steps``.

    Args:
        network: The network.
        likelihood: Distribution of the target, whose negative log density is the loss.
        x: ``(num_data, ...)`` inputs.
        y: ``(num_data, ...)`` targets.
        epsilon: Largest change of each entry, in the unit of the inputs, >= 0.
        num_steps: Steps.
        seed: Seed of the start.

    Raises:
        ValueError: If ``epsilon`` is negative, or ``num_steps`` is not positive.
    """
    _check(epsilon=epsilon)
    if num_steps < 1:
        raise ValueError(f"Expected num_steps >= 1, but got {num_steps}.")
    step = 2.5 * epsilon / num_steps
    with seeded(substream(seed, "pgd"), x.device):
        moved = x + epsilon * (2 * torch.rand_like(x) - 1)
    with evaluating(network):
        for _ in range(num_steps):
            moved = moved + step * _gradient(network, likelihood, moved, y).sign()
            moved = torch.maximum(torch.minimum(moved, x + epsilon), x - epsilon)
    return moved


def robustness(
    network: nn.Module,
    likelihood: Likelihood,
    data: tuple[Tensor, Tensor],
    score: Callable[[nn.Module, Tensor, Tensor], float],
    *,
    weight_scale: float = 0.1,
    input_scale: float = 0.1,
    epsilon: float = 0.1,
    num_draws: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Return the score of a network under all changes.

    Args:
        network: The network.
        likelihood: Distribution of the target.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        score: Score of a network (in evaluation mode) on inputs and targets.
        weight_scale: As of `weight_noise`.
        input_scale: As of `input_noise`.
        epsilon: As of `fgsm` and `pgd`.
        num_draws: Draws of random changes, over which the score is averaged.
        seed: Seed of all changes.

    Returns:
        ``weight_noise``, ``input_noise``, ``fgsm`` and ``pgd``.
    """
    x, y = data
    with evaluating(network):
        seeds = [substream(seed, "draw", number) for number in range(num_draws)]
        weights = [score(weight_noise(network, weight_scale, seed=s), x, y) for s in seeds]
        inputs = [score(network, input_noise(x, input_scale, seed=s), y) for s in seeds]
        return {
            "weight_noise": sum(weights) / num_draws,
            "input_noise": sum(inputs) / num_draws,
            "fgsm": score(network, fgsm(network, likelihood, x, y, epsilon), y),
            "pgd": score(network, pgd(network, likelihood, x, y, epsilon, seed=seed), y),
        }


def _gradient(network: nn.Module, likelihood: Likelihood, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to the inputs, example by example."""
    parts = []
    with torch.enable_grad():
        for inputs, targets in zip(x.split(500), y.split(500), strict=True):
            moved = inputs.detach().clone().requires_grad_(True)
            loss = -likelihood(network(moved)).log_prob(targets).sum()
            # A pruned network may not read its inputs at all.
            found = torch.autograd.grad(loss + 0.0 * moved.sum(), moved)[0]
            parts.append(found)
    return torch.cat(parts)


def _check(**sizes: float) -> None:
    for name, value in sizes.items():
        if not value >= 0:
            raise ValueError(f"Expected {name} >= 0, but got {value}.")
