"""Save and load a fitted posterior: one safetensors file, without data and without pickled code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance import architecture, guides, likelihoods, priors, relaxations
from pyro_relevance.checkpoint import read_tensors, write_tensors
from pyro_relevance.edges import Edges
from pyro_relevance.errors import CheckpointError
from pyro_relevance.history import History
from pyro_relevance.likelihoods import Likelihood
from pyro_relevance.model import RelevanceModel
from pyro_relevance.posterior import Posterior

__all__ = ["load_posterior", "save_posterior"]

FORMAT = "pyro_relevance posterior 1"


def save_posterior(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """Write a posterior to one file, completely or not at all.

    The file holds tensors and a JSON description. What cannot be described without code (a network of the user's own
    class, a foreign guide or prior) is left out and must be given to `load_posterior`.

    Args:
        posterior: The posterior.
        path: The file to write (``.safetensors``).

    Raises:
        OSError: If the file cannot be written; a previous file stays as it was.
    """
    model = posterior.model
    tensors = {f"state/{name}": tensor for name, tensor in posterior.state.items()}
    if model.has_gates:
        tensors["prior_log_odds"] = model.prior_log_odds
    if posterior.history is not None:
        arrays = posterior.history.to_arrays()
        tensors |= {f"history/{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
    description = {
        "format": FORMAT,
        "num_data": model.num_data,
        "edges": model.edges.to_json(),
        "network": _tried(architecture.describe, model.network),
        "likelihood": _tried(likelihoods.describe, model.likelihood),
        "guide": _describe_guide(posterior.guide),
        "gate_prior": None if model.gate_prior is None else _describe(model.gate_prior, priors),
        "weight_prior": _describe(model.weight_prior, priors),
        "relaxation": _describe(model.relaxation, relaxations),
        "has_gates": model.has_gates,
    }
    write_tensors(Path(path), tensors, description)


def load_posterior(
    path: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    likelihood: Likelihood | None = None,
    guide: Callable[[RelevanceModel], nn.Module] | None = None,
    gate_prior: priors.GatePrior | None = None,
    weight_prior: priors.WeightPrior | None = None,
) -> Posterior:
    """Return the posterior that `save_posterior` wrote; no data are needed.

    Args:
        path: The file.
        network: A network of the same architecture, where the file could not describe it; never changed.
        likelihood: The likelihood, where it is of the user's own class.
        guide: What makes the guide from the model, where it is not one of the library's.
        gate_prior: The prior over gates, where it is of the user's own class.
        weight_prior: The prior over weights, where it is of the user's own class.

    Raises:
        CheckpointError: If the file is missing or damaged, or something that it could not describe was not given.
    """
    file = Path(path)
    tensors, description = read_tensors(file)
    if description.get("format") != FORMAT:
        raise CheckpointError(f"Expected a posterior at {file}, but the file is of another kind. Check the path.")

    def given_or_built(name: str, given: Any, build: Callable[[Any], Any]) -> Any:
        if given is not None:
            return given
        if description[name] is None:
            raise CheckpointError(
                f"Expected {name}= for {file}, because it is of a class that cannot be stored without code. "
                f"Pass load_posterior(path, {name}=...)."
            )
        return build(description[name])

    gates: Any = None
    if description["has_gates"]:
        gates = given_or_built("gate_prior", gate_prior, lambda d: _build(d, priors))
    model = RelevanceModel(
        given_or_built("network", network, architecture.build),
        Edges.from_json(description["edges"]),
        likelihood=given_or_built("likelihood", likelihood, likelihoods.build),
        num_data=int(description["num_data"]),
        gate_prior=gates,
        weight_prior=given_or_built("weight_prior", weight_prior, lambda d: _build(d, priors)),
        relaxation=given_or_built("relaxation", None, lambda d: _build(d, relaxations)),
    )
    state = {n.removeprefix("state/"): t for n, t in tensors.items() if n.startswith("state/")}
    made = given_or_built("guide", guide, _guide_builder)(model)
    if not isinstance(made, nn.Module):
        raise CheckpointError(f"Expected guide= to make an nn.Module, but it made a {type(made).__name__}.")
    arrays = {n.removeprefix("history/"): t.numpy() for n, t in tensors.items() if n.startswith("history/")}
    history = History.from_arrays(arrays) if arrays else None
    _check_state(model, made, state, file)
    dtype = next(t.dtype for n, t in state.items() if n.startswith("model.network.") and t.is_floating_point())
    return Posterior(model.to(dtype), made.to(dtype), state, history=history)


def _check_state(model: RelevanceModel, guide: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    expected = {f"model.{n}": tuple(t.shape) for n, t in model.named_parameters()}
    expected |= {f"guide.{n}": tuple(t.shape) for n, t in guide.named_parameters()}
    for name, shape in expected.items():
        found = tuple(state[name].shape[1:]) if name in state else None
        if found != shape:
            raise CheckpointError(
                f"Expected '{name}' of shape {shape} in {file}, but found {found}. Pass the network and guide that "
                "the posterior was fitted with."
            )


def _tried(describe: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return describe(thing)
    except ValueError:  # not describable without code: to be given when loading
        return None


def _describe(thing: Any, module: Any) -> dict[str, Any] | None:
    """Return class name and fields of a frozen dataclass of ``module``, or ``None`` for any other object."""
    name = type(thing).__name__
    if getattr(module, name, None) is not type(thing):
        return None
    return {"kind": name, **{f.name: _plain(getattr(thing, f.name)) for f in fields(thing)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": value.tolist()}
    if isinstance(value, Mapping):
        return {"mapping": {name: _plain(item) for name, item in value.items()}}
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(value["tensor"])
    if isinstance(value, dict) and "mapping" in value:
        return {name: _unplain(item) for name, item in value["mapping"].items()}
    return value


def _build(description: Mapping[str, Any], module: Any) -> Any:
    settings = {name: _unplain(value) for name, value in description.items() if name != "kind"}
    return getattr(module, description["kind"])(**settings)


def _describe_guide(guide: nn.Module) -> dict[str, Any] | None:
    if type(guide) is guides.MeanFieldGuide:
        return {"kind": "MeanFieldGuide"}
    if type(guide) is guides.LowRankGuide:
        return {"kind": "LowRankGuide", "rank": guide.rank}
    return None


def _guide_builder(description: Mapping[str, Any]) -> Callable[[RelevanceModel], nn.Module]:
    settings = {name: value for name, value in description.items() if name != "kind"}
    return lambda model: getattr(guides, description["kind"])(model, **settings)
