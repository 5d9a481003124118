"""Save and load a fitted posterior: one safetensors file, without data and without pickled code."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_relevance._files import read_tensors, tensors_below, write_tensors
from pyro_relevance._random import seeded
from pyro_relevance.edges.find import Edges
from pyro_relevance.errors import CheckpointError, EdgeError
from pyro_relevance.model import likelihoods, priors, relaxations, stored
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.evaluation import quiet
from pyro_relevance.posterior.history import History, check_arrays
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery import description as architecture
from pyro_relevance.surgery.arguments import fits
from pyro_relevance.surgery.building import check_state

__all__ = ["load_posterior", "save_posterior"]

FORMAT = "pyro_relevance posterior 1"

# The fields of a file, and of those that files of graphs have beside them.
_PART = Mapping
_FIELDS: dict[str, Any] = {
    "format": str,
    "num_data": int,
    "first_chain": int,
    "temperature": float,
    "edges": str,
    "network": _PART,
    "likelihood": _PART,
    "guide": _PART,
    "gate_prior": _PART,
    "weight_prior": _PART,
    "relaxation": _PART,
    "has_gates": bool,
}
_OF_OPERATIONS = {"operation_prior", "operation_relaxation"}

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
        "guide": stored.describe_guide(posterior.guide),
        "gate_prior": None if model.gate_prior is None else stored.describe(model.gate_prior),
        "weight_prior": stored.describe(model.weight_prior),
        "relaxation": stored.describe(model.relaxation),
        "has_gates": model.gate_prior is not None,
    }
    if model.has_operations:
        description["operation_prior"] = stored.describe(model.operation_prior)
        description["operation_relaxation"] = stored.describe(model.operation_relaxation)
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
        fault = _fault_of_description(description) or _fault_of_tensors(tensors)
        if fault:
            raise _damaged(path, fault)
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
        description = self.description[name]
        try:
            if name == "network":
                check_state(description, self._shapes("model.network."))
            if name == "guide":
                self._check_rank(description)
            return stored.build(name, description)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"Expected a {name} of this library in {self.path}, but cannot make it: {error}. "
                f"Use another copy, or pass load_posterior(path, {name}=...)."
            ) from error

    def _shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of a part, for one chain."""
        found = tensors_below(prefix, self.state)
        return {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}

    def _check_rank(self, description: Mapping[str, Any]) -> None:
        """Check the size of a guide before its factors are made."""
        sizes = [math.prod(shape) for shape in self._shapes("guide.").values()]
        rank = description.get("rank", 1)
        if not isinstance(rank, int) or rank > max(sizes, default=0):
            raise ValueError(f"Expected a rank with the factors of the file, but got {rank!r:.60}")

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
        try:
            model = RelevanceModel(
                edges=Edges.from_json(self.description["edges"]),
                num_data=self.description["num_data"],
                **{"gate_prior": None, **parts},
            )
        except (EdgeError, KeyError, IndexError, ValueError, RuntimeError) as error:
            raise _damaged(self.path, f"its parts do not fit each other: {error}") from error
        model.set_mode(temperature=float(self.description["temperature"]))
        _adopt(model, "model", self.state, self.path)
        return model

    def guide(
        self, model: RelevanceModel, given: MakeGuide | None, example_input: Tensor | None
    ) -> nn.Module:
        """Return the guide with the values of the first chain."""
        make_guide = self.part("guide", given)
        with seeded(0), quiet(model):  # a guide may draw where it starts
            try:
                made = make_guide(model)
            except (ValueError, RuntimeError, ArithmeticError) as error:
                if given is not None:
                    raise
                raise _damaged(self.path, f"its guide does not fit: {error}") from error
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
        if arrays:
            check_arrays(arrays, num_chains=len(next(iter(self.state.values()))), path=self.path)
        return Posterior(
            model,
            guide,
            self.state,
            history=History.from_arrays(arrays) if arrays else None,
            first_chain=int(self.description["first_chain"]),
        )


def _damaged(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"Expected a complete posterior at {path}, but it is damaged: {fault}. Use another copy."
    )


def _fault_of_description(description: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the fields of a file, or ``None``."""
    if not _FIELDS.keys() <= description.keys() <= _FIELDS.keys() | _OF_OPERATIONS:
        return f"expected the fields {sorted(_FIELDS)}, but got {sorted(description)}"[:400]
    if len(description.keys() & _OF_OPERATIONS) == 1:
        return "expected prior and relaxation of operations, but got one of them"
    for name, hint in _FIELDS.items():
        value = description[name]
        is_part = value is None or isinstance(value, Mapping)
        if not (is_part if hint is Mapping else fits(value, hint)):
            return f"expected {name} as {hint}, but got {repr(description[name])[:60]}"
    if description["num_data"] < 1 or description["first_chain"] < 0:
        return "expected num_data >= 1 and first_chain >= 0"
    if description["temperature"] <= 0:
        return "expected temperature > 0"
    return None


def _fault_of_tensors(tensors: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with the tensors of a file, or ``None``."""
    others = [name for name in tensors if not name.startswith(("state/", "history/"))]
    if others:
        return f"expected state and history, but got the tensor {others[0]!r}"
    state = tensors_below("state/", tensors)
    chains = {len(tensor) if tensor.ndim else 0 for tensor in state.values()}
    if len(chains) != 1 or 0 in chains:
        return f"expected tensors of as many chains, at least one, but got {sorted(chains)}"
    return None


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
        fault = _fault_of_type(tensor, saved[name])
        if fault:
            raise _damaged(file, f"{fault} for '{prefix}.{name}'")
        tensor.data = saved[name][0].clone()


def _fault_of_type(own: Tensor, saved: Tensor) -> str | None:
    """Return what is wrong with the type or the numbers of a tensor; floats may have any width."""
    floats = own.is_floating_point() and saved.is_floating_point()
    if own.dtype != saved.dtype and not floats:
        return f"expected {own.dtype}, but got {saved.dtype}"
    if bool(own.isfinite().all()) and not bool(saved.isfinite().all()):  # a mask may be infinite
        return "expected finite numbers, but got others"
    return None


def _describe_network(network: nn.Module) -> dict[str, Any] | None:
    """Describe a network as a tree of modules, or return ``None`` where that is not possible."""
    description = architecture.describe(network)
    return None if description["type"] == "Graph" else description


def _tried(describe: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return describe(thing)
    except ValueError:  # not describable without code: to be given when loading
        return None
