"""Save and load a fitted posterior: one safetensors file, without data and without pickled code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_relevance._files import read_tensors, tensors_below, write_tensors
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

MakeGuide = Callable[[RelevanceModel], nn.Module]


def save_posterior(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """Write a posterior to one file, completely or not at all.

    The file holds tensors and a JSON description. What cannot be described without code (a network
    of the user's own class, a foreign guide or prior) is not in the file and must be given to
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
        "gate_prior": None if model.gate_prior is None else _describe(model.gate_prior),
        "weight_prior": _describe(model.weight_prior),
        "relaxation": _describe(model.relaxation),
        "has_gates": model.gate_prior is not None,
    }
    if model.has_operations:
        description["operation_prior"] = _describe(model.operation_prior)
        description["operation_relaxation"] = _describe(model.operation_relaxation)
    write_tensors(Path(path), tensors, description)


def load_posterior(
    path: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    likelihood: Likelihood | None = None,
    guide: MakeGuide | None = None,
    gate_prior: priors.GatePrior | None = None,
    weight_prior: priors.WeightPrior | None = None,
    relaxation: relaxations.Relaxation | None = None,
    operation_prior: priors.OperationPrior | None = None,
    operation_relaxation: relaxations.OperationRelaxation | None = None,
    example_input: Tensor | None = None,
) -> Posterior:
    """Return the posterior that `save_posterior` wrote; no data are needed.

    Each part of the model is needed only where it is of the user's own class, so that the file
    could not describe it.

    Args:
        path: The file.
        network: A network of the same architecture; never changed.
        likelihood: The likelihood.
        guide: What makes the guide from the model.
        gate_prior: The prior over gates.
        weight_prior: The prior over weights.
        relaxation: The relaxation of the gates.
        operation_prior: The prior over operations.
        operation_relaxation: Their relaxation.
        example_input: ``(1, ...)`` any input, where the guide makes its parameters only when it is
            first called (AutoGuides of Pyro).

    Raises:
        CheckpointError: If the file is missing or damaged, names a class that is not the
            library's, or does not describe something that was not given.
        TypeError: If ``guide`` is a guide instead of what makes one.
    """
    if isinstance(guide, nn.Module):
        raise TypeError(
            f"Expected guide= to make a guide from the model, but got a {type(guide).__name__}. "
            f"Pass the class, or guide=lambda model: {type(guide).__name__}(model, ...)."
        )
    file = _PosteriorFile.read(Path(path))
    parts = {
        "network": network,
        "likelihood": likelihood,
        "gate_prior": gate_prior,
        "weight_prior": weight_prior,
        "relaxation": relaxation,
        "operation_prior": operation_prior,
        "operation_relaxation": operation_relaxation,
    }
    model = file.model(parts)
    return file.posterior(model, file.guide(model, guide, example_input))


@dataclass(frozen=True)
class _PosteriorFile:
    """What a file holds, and how a posterior is made from it."""

    path: Path
    tensors: Mapping[str, Tensor]
    description: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> _PosteriorFile:
        tensors, description = read_tensors(path)
        if description.get("format") != FORMAT:
            raise CheckpointError(
                f"Expected a posterior at {path}, but the file is of another kind. Check the path."
            )
        return cls(path, tensors, description)

    @property
    def state(self) -> dict[str, Tensor]:
        """Values of all chains by name."""
        return tensors_below("state/", self.tensors)

    def part(self, name: str, given: Any) -> Any:
        """Return a part of the model: the one that was given, or the one that is described."""
        if given is not None:
            return given
        if self.description[name] is None:
            raise CheckpointError(
                f"Expected {name}= for {self.path}, because it is of a class that cannot be stored "
                f"without code. Pass load_posterior(path, {name}=...)."
            )
        try:
            return _BUILDERS[name](self.description[name])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Expected a {name} of this library in {self.path}, but cannot make it: {error}. "
                f"Use another copy, or pass load_posterior(path, {name}=...)."
            ) from error

    def model(self, given: Mapping[str, Any]) -> RelevanceModel:
        """Return the model with the values of the first chain.

        Args:
            given: For each part of the model, what the user gave, or ``None``.
        """
        names = ["network", "likelihood", "weight_prior", "relaxation"]
        if self.description["has_gates"]:
            names.append("gate_prior")
        if "operation_prior" in self.description:
            names += ["operation_prior", "operation_relaxation"]
        parts = {name: self.part(name, given[name]) for name in names}
        model = RelevanceModel(
            edges=Edges.from_json(self.description["edges"]),
            num_data=int(self.description["num_data"]),
            **{"gate_prior": None, **parts},
        )
        model.set_mode(temperature=float(self.description["temperature"]))
        _adopt(model, "model", self.state, self.path)
        return model

    def guide(
        self, model: RelevanceModel, given: MakeGuide | None, example_input: Tensor | None
    ) -> nn.Module:
        """Return the guide with the values of the first chain."""
        make_guide = self.part("guide", given)
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
        _adopt(made, "guide", self.state, self.path)
        return made

    def posterior(self, model: RelevanceModel, guide: nn.Module) -> Posterior:
        """Return the posterior of model and guide, with all chains and the history."""
        arrays = {n: t.numpy() for n, t in tensors_below("history/", self.tensors).items()}
        return Posterior(
            model,
            guide,
            self.state,
            history=History.from_arrays(arrays) if arrays else None,
            first_chain=int(self.description["first_chain"]),
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
    """Describe a network as a tree of modules, or return ``None`` where that is not possible."""
    description = architecture.describe(network)
    return None if description["type"] == "Graph" else description


def _tried(describe: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return describe(thing)
    except ValueError:  # not describable without code: to be given when loading
        return None


def _describe(thing: Any) -> dict[str, Any] | None:
    """Return class and fields of one of the library's values, or ``None`` for any other object."""
    name = type(thing).__name__
    if _KINDS.get(name) is not type(thing):
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
        return torch.tensor(value["tensor"], dtype=_DTYPES[value["dtype"]])
    if isinstance(value, dict) and "mapping" in value:
        return {name: _unplain(item) for name, item in value["mapping"].items()}
    return value


def _build(description: Mapping[str, Any], kinds: Mapping[str, Any]) -> Any:
    """Make a value of one of the classes that a file may name."""
    name = description["kind"]
    if name not in kinds:
        raise ValueError(f"Expected one of {sorted(kinds)}, but got {name!r}")
    settings = {key: _unplain(value) for key, value in description.items() if key != "kind"}
    return kinds[name](**settings)


def _describe_guide(guide: nn.Module) -> dict[str, Any] | None:
    if type(guide) in (guides.MeanFieldGuide, guides.SpikeAndSlabGuide):
        return {"kind": type(guide).__name__}
    if type(guide) is guides.LowRankGuide:
        return {"kind": "LowRankGuide", "rank": guide.rank}
    return None


def _mean_field() -> MakeGuide:
    return guides.MeanFieldGuide


def _spike_and_slab() -> MakeGuide:
    return guides.SpikeAndSlabGuide


def _low_rank(rank: int) -> MakeGuide:
    return lambda model: guides.LowRankGuide(model, rank=rank)


def _by_name(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


# The classes that a file may name, by the part of the model that they make; no file can ask for
# anything else. What is not registered here is not in a file and must be given when it is loaded.
_GATE_PRIORS = _by_name(
    priors.IndependentPrior, priors.HierarchicalPrior, priors.DescriptionLengthPrior
)
_WEIGHT_PRIORS = _by_name(
    priors.PointWeights,
    priors.GaussianWeights,
    priors.ArdWeights,
    priors.HorseshoeWeights,
    priors.LogUniformWeights,
)
_RELAXATIONS = _by_name(
    relaxations.Concrete,
    relaxations.HardConcreteGate,
    relaxations.StraightThrough,
    relaxations.Hardening,
)
_OPERATION_PRIORS = _by_name(
    priors.CategoricalPrior, priors.DirichletPrior, priors.OperationCostPrior
)
_OPERATION_RELAXATIONS = _by_name(
    relaxations.Mixture, relaxations.SampledPath, relaxations.TopPaths
)
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.bool,
    )
}
_GUIDES = {
    "MeanFieldGuide": _mean_field,
    "SpikeAndSlabGuide": _spike_and_slab,
    "LowRankGuide": _low_rank,
}
_KINDS: dict[str, Any] = {
    **_GATE_PRIORS,
    **_WEIGHT_PRIORS,
    **_RELAXATIONS,
    **_OPERATION_PRIORS,
    **_OPERATION_RELAXATIONS,
}
_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "network": architecture.build,
    "likelihood": likelihoods.build,
    "gate_prior": partial(_build, kinds=_GATE_PRIORS),
    "weight_prior": partial(_build, kinds=_WEIGHT_PRIORS),
    "relaxation": partial(_build, kinds=_RELAXATIONS),
    "operation_prior": partial(_build, kinds=_OPERATION_PRIORS),
    "operation_relaxation": partial(_build, kinds=_OPERATION_RELAXATIONS),
    "guide": partial(_build, kinds=_GUIDES),
}
