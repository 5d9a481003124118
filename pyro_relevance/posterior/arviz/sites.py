"""Latent sites and weights as ArviZ variables, and what has one value in each chain.

What the guide draws goes to the group ``posterior``. A point estimate has no posterior: it is
constant over the draws of a chain, where ``r_hat`` divides by zero. It goes to ``point_estimates``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_relevance.model.likelihoods import Likelihood

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.posterior.arviz.rows import TargetUnits
    from pyro_relevance.posterior.draws import Draws
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["draw_numbers", "parameter_name", "point_estimates", "site_variables"]

_LONGEST = 500
"""Characters of a prior's description that are kept."""


def parameter_name(parameter: str) -> str:
    """The ArviZ name of a parameter: ``hidden1_weight`` of ``"hidden1.weight"``.

    Args:
        parameter: Qualified name of the parameter.

    Example:
        >>> parameter_name("0.weight")
        'layer_0_weight'
    """
    stem = re.sub(r"\W", "_", parameter)
    return f"layer_{stem}" if stem[:1].isdigit() else stem


def site_variables(posterior: Posterior, draws: Draws, num_samples: int, seed: int) -> xr.Dataset:
    """Return the latent sites, and the parameters that the guide draws.

    Args:
        posterior: The fitted result.
        draws: Its draws with the same number and seed.
        num_samples: Draws in each chain.
        seed: Seed of the draws.

    Returns:
        Over ``(chain, draw, ...)``: each site under its own name, and each parameter of the network
        under `parameter_name`. ``gate`` has the labels of the edges as coordinates. The site that
        holds the parameters packed into one vector is left out: it is the same numbers.
    """
    import xarray as xr

    sites = posterior.sample_sites(num_samples, seed=seed)
    latent = _latent_parameters(posterior)
    drawn = {name: weight for name, weight in draws.weights.items() if name in latent}
    packed = torch.cat([w.flatten(2) for w in drawn.values()], -1) if drawn else None
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, value in sites.items():
        same = packed is not None and value.shape == packed.shape and torch.equal(value, packed)
        if same:
            continue
        if name == "gate":
            labels = [f"{g.name}[{label}]" for g in posterior.edges.groups for label in g.labels]
            coords["edge"] = np.asarray(labels, dtype=np.str_)
            variables[name] = (("chain", "draw", "edge"), _array(value))
        else:
            variables[name] = (_dims(name, value.ndim - 2), _array(value))
    for parameter, value in drawn.items():
        name = parameter_name(parameter)
        variables[name] = (_dims(name, value.ndim - 2), _array(value))
    if not variables:
        return draw_numbers(posterior.num_chains, num_samples)
    coords |= {"chain": np.arange(posterior.num_chains), "draw": np.arange(num_samples)}
    return xr.Dataset(variables, coords, _descriptions(posterior))


def draw_numbers(num_chains: int, num_samples: int) -> xr.Dataset:
    """Return a group with the number of each draw alone: ArviZ wants to know how many there are.

    Args:
        num_chains: Number of chains.
        num_samples: Draws in each chain.
    """
    import xarray as xr

    numbers = np.broadcast_to(np.arange(num_samples), (num_chains, num_samples)).copy()
    return xr.Dataset(
        {"draw_number": (("chain", "draw"), numbers)},
        {"chain": np.arange(num_chains), "draw": np.arange(num_samples)},
    )


def point_estimates(
    posterior: Posterior, draws: Draws, likelihood: Likelihood | None, target: TargetUnits
) -> xr.Dataset:
    """Return what has one value in each chain, over ``(chain, ...)``.

    Args:
        posterior: The fitted result.
        draws: Its draws.
        likelihood: Noise of new rows where it is another than that of the training.
        target: Unit of the targets.

    Returns:
        Parameters that are point estimates under `parameter_name`; the likelihood's own parameters,
        ``noise_scale`` (the target's unit) and ``degrees_of_freedom``; ``training_noise_scale``
        where a likelihood was given; ``prior_log_odds`` of the gates, in nats.
    """
    import xarray as xr

    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {"chain": np.arange(posterior.num_chains)}
    latent = _latent_parameters(posterior)
    for parameter, value in draws.weights.items():
        if parameter not in latent:
            name = parameter_name(parameter)
            dims = ("chain", *(f"{name}_dim_{i}" for i in range(value.ndim - 2)))
            variables[name] = (dims, _array(value[:, 0]))
    own = [posterior.chain(i).likelihood for i in range(posterior.num_chains)]
    if likelihood is None:
        variables |= _noise(own, target, "")
    else:
        variables |= _noise([likelihood] * len(own), target, "")
        variables |= _noise(own, target, "training_")
    odds = posterior.state.get("model.prior_log_odds")
    if odds is not None:
        labels = [f"{g.name}[{label}]" for g in posterior.edges.groups for label in g.labels]
        coords["edge"] = np.asarray(labels, dtype=np.str_)
        variables["prior_log_odds"] = (("chain", "edge"), _array(odds), {"units": "nats"})
    return xr.Dataset(variables, coords)


def _latent_parameters(posterior: Posterior) -> tuple[str, ...]:
    """Names of the parameters that are drawn; the others are point estimates."""
    model = posterior.model
    return model.weight_prior.latent_parameters(dict(model.network.named_parameters()))


def _noise(laws: list[Likelihood], target: TargetUnits, prefix: str) -> dict[str, Any]:
    """Scale of the noise in the target's unit, and degrees of freedom, for likelihoods with one."""
    found: dict[str, Any] = {}
    scales: list[Tensor] = []
    degrees: list[float] = []
    for law in laws:
        log_scale: Any = getattr(law, "log_scale", None)
        if log_scale is not None:
            smallest = float(getattr(law, "minimum_scale", 0.0))
            scales.append(target.scale * (log_scale.detach().exp() + smallest))
        log_excess: Any = getattr(law, "log_excess", None)
        if log_excess is not None:
            degrees.append(2.0 + float(log_excess.detach().exp()))
    if scales:
        values = _array(torch.stack(scales))
        dims = ("chain",) if values.shape[1] == 1 else ("chain", "output")
        found[f"{prefix}noise_scale"] = (dims, values[:, 0] if len(dims) == 1 else values)
    if degrees:
        found[f"{prefix}degrees_of_freedom"] = (("chain",), np.asarray(degrees))
    return found


def _descriptions(posterior: Posterior) -> dict[str, str]:
    """The parts of the model in words, for the attributes."""
    model = posterior.model
    parts: Mapping[str, object] = {
        "guide": type(posterior.guide).__name__,
        "gate_prior": model.gate_prior,
        "weight_prior": model.weight_prior,
        "relaxation": model.relaxation,
        "training_likelihood": model.likelihood,
    }
    return {name: str(part)[:_LONGEST] for name, part in parts.items()}


def _dims(name: str, extra: int) -> tuple[str, ...]:
    return ("chain", "draw", *(f"{name}_dim_{i}" for i in range(extra)))


def _array(value: Tensor) -> Any:
    return np.ascontiguousarray(value.detach().cpu().numpy())
