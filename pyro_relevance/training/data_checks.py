"""Checks of a chain's data against its network and likelihood, before any work."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_relevance.model import likelihoods
from pyro_relevance.model.inputs import accepted, check_finite, check_rows, checked_inputs
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.parts import check_likelihood
from pyro_relevance.training.divergence import first_bad_tensor

__all__ = ["check_data", "check_held_out", "check_types"]

_FLOATING = (
    likelihoods.Gaussian,
    likelihoods.StudentT,
    likelihoods.Bernoulli,
    likelihoods.Poisson,
)


def check_types(model: RelevanceModel, x: Tensor) -> None:
    """Check that the network can be called with the inputs at all.

    Args:
        model: The model.
        x: ``(num_data, ...)`` inputs.

    Raises:
        ValueError: If a weight is not finite, or inputs and weights are of different types.
    """
    named = dict(model.network.named_parameters())
    bad = first_bad_tensor(named.items())
    if bad is not None:
        raise ValueError(
            f"Expected finite weights to start from, but '{bad}' of the network has NaN or "
            "infinite entries. Re-initialise the network."
        )
    checked_inputs(model.network, x)


def check_data(model: RelevanceModel, outputs: Tensor, x: Tensor, y: Tensor) -> None:
    """Check all examples of a chain against network and likelihood.

    Args:
        model: The model.
        outputs: ``(num_examples, num_outputs)`` outputs of the network for the first examples.
        x: ``(num_data, ...)`` inputs.
        y: ``(num_data, ...)`` targets.

    Raises:
        TypeError: If the likelihood returns something else than a distribution.
        ValueError: If a shape, a type or a value does not fit.
    """
    likelihood = model.likelihood
    name = type(likelihood).__name__
    distribution = check_likelihood(likelihood, outputs)
    known = type(likelihood).__module__ == likelihoods.__name__
    shape = tuple(distribution.batch_shape) + tuple(distribution.event_shape)
    if shape[1:] != tuple(y.shape[1:]):
        raise ValueError(
            f"Expected targets of shape {(y.shape[0], *shape[1:])} for {name}, but got "
            f"{tuple(y.shape)}. Reshape y; a column of shape (num_data, 1) is squeezed with "
            "y.squeeze(1)" + ("." if known else ", or outputs.squeeze(-1) in your likelihood.")
        )
    if isinstance(likelihood, likelihoods.Categorical):
        low, high = float(y.min()), float(y.max())
        if y.is_floating_point() or low < 0 or high >= outputs.shape[1]:
            raise ValueError(
                f"Expected integer classes 0 .. {outputs.shape[1] - 1} for Categorical, but got "
                f"{y.dtype} from {low:g} to {high:g}. Number the classes from 0, as torch.long."
            )
    elif isinstance(likelihood, _FLOATING) and not y.is_floating_point():
        raise ValueError(
            f"Expected floating-point targets for {name}, but got {y.dtype}. Pass y.float()."
        )
    check_finite(y, "y", "targets")
    check_finite(x, "x", "inputs")
    support: Any = distribution.support
    inside: Tensor = support.check(y)
    if not bool(inside.all()):
        outside = y[~inside.reshape(inside.shape[0], -1).all(1)][0]
        raise ValueError(
            f"Expected targets in the support of {name}, but got {outside.tolist()}. Choose "
            "another likelihood, or encode the target differently."
        )


def check_held_out(model: RelevanceModel, x: Tensor, y: Tensor) -> None:
    """Check held-out examples against network and likelihood, by the outputs of a few of them.

    Args:
        model: The model.
        x: ``(num_data, ...)`` inputs.
        y: ``(num_data, ...)`` targets.

    Raises:
        ValueError: If a shape, a type or a value does not fit.
        TypeError: If they are no tensors.
    """
    few = checked_inputs(model.network, x, "held-out inputs")[:2]
    parameters = dict(model.network.named_parameters())
    with accepted(model.network, x, "held-out inputs"):
        outputs = model.run(few, parameters, {})
    check_rows(outputs, few, "held-out inputs")
    check_data(model, outputs, x, y)
