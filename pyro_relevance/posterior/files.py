"""Save and load a fitted posterior: one safetensors file, without data and without pickled code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_relevance._files import read_tensors, write_tensors
from pyro_relevance._random import seeded
from pyro_relevance.edges.find import Edges
from pyro_relevance.errors import CheckpointError
from pyro_relevance.model import guides, likelihoods, priors, relaxations
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.evaluation import quiet
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery import description as architecture

__all__ = ["load_posterior", "save_posterior"]

FORMAT = "pyro_relevance posterior 1"


def save_posterior(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """Write a posterior to one file, completely or not at all.

    The file holds tensors and a JSON description. What cannot be described without code (a network
    of the user's own class, a foreign guide or prior) is left out and must be given to
    `load_posterior`.

    Args:
        posterior: The posterior.
        path: The file to write (``.safetensors``).

    Raises:
        OSError: If the file cannot be written; a previous file stays as it was.
    """
    model = posterior.model
    tensors = {f"state/{name}": tensor for name, tensor in posterior.state.items()}
    if posterior.history is not None:
        arrays = posterior.history.to_arrays()
        tensors |= {f"history/{name}": torch.from_numpy(a.copy()) for name, a in arrays.items()}
    description = {
        "format": FORMAT,
        "num_data": model.num_data,
        "first_chain": posterior.first_chain,
        "temperature": float(model.temperature),
        "edges": model.edges.to_json(),
        "network": _tried(_describe_network, model.network),
        "likelihood": _tried(likelihoods.describe, model.likelihood),
        "guide": _describe_guide(posterior.guide),
        "gate_prior": None if model.gate_prior is None else _describe(model.gate_prior, priors),
        "weight_prior": _describe(model.weight_prior, priors),
        "relaxation": _describe(model.relaxation, relaxations),
        "has_gates": model.gate_prior is not None,
    }
    if model.has_operations:
        description["operation_prior"] = _describe(model.operation_prior, priors)
        description["operation_relaxation"] = _describe(model.operation_relaxation, relaxations)
    write_tensors(Path(path), tensors, description)


def load_posterior(
    path: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    likelihood: Likelihood | None = None,
    guide: Callable[[RelevanceModel], nn.Module] | None = None,
    gate_prior: priors.GatePrior | None = None,
    weight_prior: priors.WeightPrior | None = None,
    relaxation: relaxations.Relaxation | None = None,
    operation_prior: priors.OperationPrior | None = None,
    operation_relaxation: relaxations.OperationRelaxation | None = None,
    example_input: Tensor | None = None,
) -> Posterior:
    """Return the posterior that `save_posterior` wrote; no data are needed.

    Args:
        path: The file.
        network: A network of the same architecture, where the file could not describe it; never
            changed.
        likelihood: The likelihood, where it is of the user's own class.
        guide: What makes the guide from the model, where it is not one of the library's.
        gate_prior: The prior over gates, where it is of the user's own class.
        weight_prior: The prior over weights, where it is of the user's own class.
        relaxation: The relaxation, where it is of the user's own class.
        operation_prior: The prior over operations, where it is of the user's own class.
        operation_relaxation: Their relaxation, where it is of the user's own class.
        example_input: ``(1, ...)`` any input, where the guide makes its parameters only when it is
            first called (AutoGuides of Pyro).

    Raises:
        CheckpointError: If the file is missing or damaged, or something that it could not describe
            was not given.
        TypeError: If ``guide`` is a guide instead of what makes one.
    """
    file = Path(path)
    tensors, description = read_tensors(file)
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"Expected a posterior at {file}, but the file is of another kind. Check the path."
        )
    if isinstance(guide, nn.Module):
        raise TypeError(
            f"Expected guide= to make a guide from the model, but got a {type(guide).__name__}. "
            f"Pass the class, or guide=lambda model: {type(guide).__name__}(model, ...)."
        )

    def given_or_built(name: str, given: Any, build: Callable[[Any], Any]) -> Any:
        if given is not None:
            return given
        if description[name] is None:
            raise CheckpointError(
                f"Expected {name}= for {file}, because it is of a class that cannot be stored "
                f"without code. Pass load_posterior(path, {name}=...)."
            )
        return build(description[name])

    gates: Any = None
    if description["has_gates"]:
        gates = given_or_built("gate_prior", gate_prior, lambda d: _build(d, priors))
    operations: dict[str, Any] = {}
    if "operation_prior" in description:
        operations = {
            "operation_prior": given_or_built(
                "operation_prior", operation_prior, lambda d: _build(d, priors)
            ),
            "operation_relaxation": given_or_built(
                "operation_relaxation", operation_relaxation, lambda d: _build(d, relaxations)
            ),
        }
    model = RelevanceModel(
        given_or_built("network", network, architecture.build),
        Edges.from_json(description["edges"]),
        likelihood=given_or_built("likelihood", likelihood, likelihoods.build),
        num_data=int(description["num_data"]),
        gate_prior=gates,
        weight_prior=given_or_built("weight_prior", weight_prior, lambda d: _build(d, priors)),
        relaxation=given_or_built("relaxation", relaxation, lambda d: _build(d, relaxations)),
        **operations,
    )
    model.temperature = float(description["temperature"])
    state = {n.removeprefix("state/"): t for n, t in tensors.items() if n.startswith("state/")}
    _adopt(model, "model", state, file)
    make_guide = given_or_built("guide", guide, _guide_builder)
    with seeded(0), quiet(model):  # a guide may draw where it starts
        made = make_guide(model)
        if not isinstance(made, nn.Module):
            raise CheckpointError(
                f"Expected guide= to make an nn.Module, but it made a {type(made).__name__}."
            )
        if example_input is not None:
            with torch.no_grad(), poutine.block():
                outputs = model(example_input)
                made(example_input, model.likelihood(outputs).sample())
    _adopt(made, "guide", state, file)
    arrays = {n[8:]: t.numpy() for n, t in tensors.items() if n.startswith("history/")}
    return Posterior(
        model,
        made,
        state,
        history=History.from_arrays(arrays) if arrays else None,
        first_chain=int(description["first_chain"]),
    )


def _adopt(module: nn.Module, prefix: str, state: Mapping[str, Tensor], file: Path) -> None:
    """Give a module the values and types of the first chain, after checking that they fit."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    saved = {n.removeprefix(f"{prefix}."): t for n, t in state.items() if n.startswith(prefix)}
    for name in sorted(own.keys() | saved.keys()):
        expected = f"shape {tuple(own[name].shape)}" if name in own else "nothing"
        found = f"shape {tuple(saved[name].shape[1:])}" if name in saved else "nothing"
        if expected != found:
            raise CheckpointError(
                f"Expected {expected} for '{prefix}.{name}' in {file}, but found {found}. "
                "Pass the network and guide that the posterior was fitted with, and example_input= "
                "where the guide makes its parameters at its first call."
            )
    for name, tensor in own.items():
        tensor.data = saved[name][0].clone()


def _describe_network(network: nn.Module) -> dict[str, Any] | None:
    """Describe a tree of modules; what a graph says of a network holds in evaluation mode only."""
    description = architecture.describe(network)
    return None if description["type"] == "Graph" else description


def _tried(describe: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return describe(thing)
    except ValueError:  # not describable without code: to be given when loading
        return None


def _describe(thing: Any, module: Any) -> dict[str, Any] | None:
    """Return class and fields of a dataclass of ``module``, or ``None`` for any other object."""
    name = type(thing).__name__
    if getattr(module, name, None) is not type(thing):
        return None
    return {"kind": name, **{f.name: _plain(getattr(thing, f.name)) for f in fields(thing)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"mapping": {name: _plain(item) for name, item in value.items()}}
    return value.item() if hasattr(value, "item") else value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
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
