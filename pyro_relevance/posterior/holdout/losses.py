"""Losses of held-out rows, and what networks and posteriors predict for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_relevance.edges.modules import evaluating
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["Loss", "Predictor", "log_loss", "loss_for", "predictor", "squared_error"]

Predictor = Callable[[Tensor], Tensor]
"""From ``(num_rows, ...)`` inputs to ``(num_rows, ...)`` predictions."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From predictions and targets ``(num_rows, ...)`` to one loss a row, ``(num_rows,)``."""


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the squared error of each row, summed over targets.

    Args:
        outputs: ``(num_rows,)``, ``(num_rows, 1)`` or ``(num_rows, num_targets)`` predictions.
        y: ``(num_rows,)`` or ``(num_rows, num_targets)`` targets.
    """
    return (outputs.reshape(len(y), -1) - y.reshape(len(y), -1)).square().sum(1)


def log_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Return minus the log probability of each row's class, in nats.

    Args:
        outputs: ``(num_rows, num_classes)`` log-odds or log-probabilities, or one log-odds of class
            1 a row, ``(num_rows,)`` or ``(num_rows, 1)``.
        y: ``(num_rows,)`` numbers of classes.
    """
    outputs = outputs.reshape(len(y), -1)
    if outputs.shape[1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return F.cross_entropy(outputs, y.long(), reduction="none")


def loss_for(
    loss: Literal["squared", "log"] | Loss | None, y: Tensor, network: object = None
) -> Loss:
    """Return a loss by its name, or the one that fits the targets.

    Args:
        loss: A name, a function, or ``None``: ``"log"`` for whole numbers and for a posterior over
            classes, otherwise ``"squared"``.
        y: The targets.
        network: What predicts them.

    Raises:
        ValueError: If the name is unknown.
    """
    if loss is None:
        classes = not (y.is_floating_point() or y.is_complex())
        if isinstance(network, Posterior):
            classes = network.likelihood.task == "classification"
        loss = "log" if classes else "squared"
    if loss == "squared":
        return squared_error
    if loss == "log":
        return log_loss
    if not callable(loss):
        raise ValueError(
            f"Expected loss to be 'squared', 'log', a function of predictions and targets, or "
            f"None, but got {loss!r}."
        )
    return loss


def predictor(network: nn.Module | Posterior | Predictor, num_samples: int, seed: int) -> Predictor:
    """Return what maps inputs to predictions, the same for the same input at each call.

    Args:
        network: A torch network (its outputs, in evaluation mode, with its own mode put back), a
            posterior (mean over chains and draws; log-probabilities of classes), or a function.
        num_samples: Draws of a posterior.
        seed: Seed of the draws.

    Raises:
        TypeError: If it cannot be called.
    """
    if isinstance(network, Posterior):
        return _of_posterior(network, num_samples, seed)
    if isinstance(network, nn.Module):
        return _of_module(network)
    if not callable(network):
        raise TypeError(
            f"Expected a network, a Posterior or a function of inputs for each fold, but got "
            f"{type(network).__name__}."
        )
    return network


def _of_posterior(posterior: Posterior, num_samples: int, seed: int) -> Predictor:
    classes = posterior.likelihood.task == "classification"

    def predict(x: Tensor) -> Tensor:
        # The same draws of gates and weights for data and redraws: their noise cancels.
        found = posterior.predict(x, num_samples=num_samples, seed=seed).posterior_mean()
        if not classes:
            return found
        if found.ndim == 1:
            found = torch.stack([1.0 - found, found], dim=1)
        return found.clamp(min=torch.finfo(found.dtype).tiny).log()

    return predict


def _of_module(network: nn.Module) -> Predictor:
    parameter = next(network.parameters(), torch.zeros(()))

    def predict(x: Tensor) -> Tensor:
        with evaluating(network), torch.no_grad():
            return network(x.to(parameter.device)).to(x.device)  # type: ignore[no-any-return]

    return predict
