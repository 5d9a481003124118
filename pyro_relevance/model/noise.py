r"""Noise of a likelihood fitted on held-out predictions.

A network that fits its training data closely has training residuals that are too small, and a noise
scale learned from them is too small as well. Held-out residuals show the noise of new data. The
noise is fitted to them here, while the network stays unchanged.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from pyro_relevance.model.likelihoods import Likelihood

__all__ = ["fit_noise", "predictive_log_likelihood"]


def predictive_log_likelihood(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the log predictive density of each example.

    .. math::
        \log \frac{1}{S} \sum_s p(y_n \mid o_{sn})

    Args:
        likelihood: The likelihood.
        outputs: ``(num_samples, num_data, num_outputs)`` raw outputs, one for each draw.
        y: ``(num_data, ...)`` targets.

    Returns:
        ``(num_data,)`` in nats.
    """
    values = torch.stack([likelihood(output).log_prob(y) for output in outputs])
    return torch.logsumexp(values, dim=0) - math.log(len(values))


def fit_noise(
    likelihood: Likelihood, outputs: Tensor, y: Tensor, *, num_steps: int = 200
) -> Likelihood:
    """Return the likelihood with its own parameters fitted to held-out data.

    All parameters of the likelihood are fitted, those with ``learn_...=False`` too: that flag is
    about training. The parameters have a weak Gaussian prior (standard deviation 2 on the log
    scale, around the given values). Without it the noise of few residuals could vanish.

    Args:
        likelihood: The likelihood to start from; it is not changed.
        outputs: ``(num_samples, num_data, num_outputs)`` raw outputs for examples that were not
            trained on.
        y: ``(num_data, ...)`` their targets.
        num_steps: Steps of L-BFGS, at most.

    Raises:
        ValueError: If there are no held-out examples, or the shapes do not fit.
    """
    if outputs.ndim != 3 or outputs.shape[1] != y.shape[0] or y.shape[0] == 0:
        raise ValueError(
            "Expected outputs of shape (num_samples, num_data, num_outputs) for the held-out "
            f"targets {tuple(y.shape)}, but got {tuple(outputs.shape)}. Pass "
            "Prediction.outputs of one chain."
        )
    fitted = copy.deepcopy(likelihood)
    if not isinstance(fitted, nn.Module) or not list(fitted.parameters()):
        return fitted
    fitted = fitted.double()
    outputs, target = outputs.double(), y.double() if y.is_floating_point() else y
    parameters = list(fitted.parameters())
    learned = [parameter.requires_grad for parameter in parameters]
    start = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.LBFGS(parameters, max_iter=num_steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -predictive_log_likelihood(fitted, outputs, target).sum()
        for parameter, initial in zip(parameters, start, strict=True):
            value = value + 0.5 * ((parameter - initial) / 2.0).square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    dtype = (
        next(p.dtype for p in likelihood.parameters())
        if isinstance(likelihood, nn.Module)
        else outputs.dtype
    )
    for parameter, flag in zip(parameters, learned, strict=True):
        parameter.grad = None
        parameter.requires_grad_(flag)
    return fitted.to(dtype)
