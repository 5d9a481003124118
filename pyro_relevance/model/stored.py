"""The parts of a model as JSON, and back: registered classes only, each for its own part.

A file names a class by a key of one of the tables at the end. No text of a file is looked up as an
attribute of anything, and arguments are checked against the constructor before it is called. What
is not registered is not in a file and must be given when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance.model import guides, likelihoods, priors, relaxations
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.surgery import building
from pyro_relevance.surgery.arguments import check_arguments

__all__ = ["build", "describe", "describe_guide"]

MakeGuide = Callable[[RelevanceModel], nn.Module]

MAX_TARGETS = 100_000
"""Most target columns of a likelihood in a file; each has a parameter."""


def describe(thing: Any) -> dict[str, Any] | None:
    """Return class and fields of one of the library's values, or ``None`` for any other object.

    Args:
        thing: A prior or a relaxation.
    """
    name = type(thing).__name__
    if _KINDS.get(name) is not type(thing):
        return None
    return {"kind": name, **{f.name: _plain(getattr(thing, f.name)) for f in fields(thing)}}


def describe_guide(guide: nn.Module) -> dict[str, Any] | None:
    """Return class and settings of one of the library's guides, or ``None`` for any other.

    Args:
        guide: The guide.
    """
    if type(guide) in (guides.MeanFieldGuide, guides.SpikeAndSlabGuide):
        return {"kind": type(guide).__name__}
    if type(guide) is guides.LowRankGuide:
        return {"kind": "LowRankGuide", "rank": guide.rank}
    return None


def build(part: str, description: Any) -> Any:
    """Make a part of a model.

    Args:
        part: Name of the part: ``network``, ``likelihood``, ``guide``, ``gate_prior``,
            ``weight_prior``, ``relaxation``, ``operation_prior`` or ``operation_relaxation``.
        description: What was described, possibly read from JSON.

    Raises:
        ValueError: The description is damaged, or names a class that is not registered for this
            part.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"Expected a mapping, but got {repr(description)[:60]}")
    return _BUILDERS[part](description)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"mapping": {name: _plain(item) for name, item in value.items()}}
    return value.item() if hasattr(value, "item") else value


def _unplain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"tensor", "dtype"}:
        return _tensor(value["tensor"], value["dtype"])
    if value.keys() == {"mapping"} and isinstance(value["mapping"], Mapping):
        return {name: _unplain(item) for name, item in value["mapping"].items()}
    raise ValueError(f"Expected a tensor or a mapping, but got {repr(value)[:60]}")


def _tensor(numbers: Any, dtype: Any) -> Tensor:
    """Return a tensor from nested lists of numbers, all of the same length at a level."""
    if not isinstance(dtype, str) or dtype not in _DTYPES or not isinstance(numbers, list):
        raise ValueError(f"Expected a list and one of {sorted(_DTYPES)}, but got {dtype!r:.60}")
    flat, shape = numbers, [len(numbers)]
    while flat and isinstance(flat[0], list):
        size = len(flat[0])
        if not all(isinstance(row, list) and len(row) == size for row in flat):
            raise ValueError("Expected rows of one length in a tensor, but got others")
        shape.append(size)
        flat = [item for row in flat for item in row]
    if not all(isinstance(item, int | float) and math.isfinite(item) for item in flat):
        raise ValueError("Expected finite numbers in a tensor, but got others")
    return torch.tensor(flat, dtype=_DTYPES[dtype]).reshape(shape)


def _build(description: Mapping[str, Any], kinds: Mapping[str, Any]) -> Any:
    """Make a value of one of the classes that a file may name."""
    name = description.get("kind")
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"Expected one of {sorted(kinds)}, but got {name!r:.60}")
    settings = {key: _unplain(value) for key, value in description.items() if key != "kind"}
    check_arguments(kinds[name], settings)
    return kinds[name](**settings)


def _build_likelihood(description: Mapping[str, Any]) -> Likelihood:
    targets = description.get("num_targets", 1)
    if not isinstance(targets, int) or not 1 <= targets <= MAX_TARGETS:
        raise ValueError(f"Expected 1 to {MAX_TARGETS} targets, but got {targets!r:.60}")
    law: Likelihood = _build(description, likelihoods._KINDS)
    return law


def _mean_field() -> MakeGuide:
    return guides.MeanFieldGuide


def _spike_and_slab() -> MakeGuide:
    return guides.SpikeAndSlabGuide


def _low_rank(rank: int) -> MakeGuide:
    return lambda model: guides.LowRankGuide(model, rank=rank)


def _by_name(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


# The classes that a file may name, by the part of the model that they make; no file can ask for
# anything else.
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
    "network": building.build,
    "likelihood": _build_likelihood,
    "gate_prior": partial(_build, kinds=_GATE_PRIORS),
    "weight_prior": partial(_build, kinds=_WEIGHT_PRIORS),
    "relaxation": partial(_build, kinds=_RELAXATIONS),
    "operation_prior": partial(_build, kinds=_OPERATION_PRIORS),
    "operation_relaxation": partial(_build, kinds=_OPERATION_RELAXATIONS),
    "guide": partial(_build, kinds=_GUIDES),
}
