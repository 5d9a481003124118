"""Checks of the parts that a user may bring: priors, likelihood, guide.

Each part is called once before the fit, without a trace in generators or in Pyro's state. Otherwise
a wrong shape shows as an error of torch from deep inside a training step, or is broadcast in
silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_relevance._random import local_pyro
from pyro_relevance.edges.find import Edges
from pyro_relevance.model.elbo import CollectMessenger
from pyro_relevance.model.guides.protocol import RelevanceGuide
from pyro_relevance.model.latents import Latent

if TYPE_CHECKING:
    from pyro_relevance.model.likelihoods import Likelihood
    from pyro_relevance.model.model import RelevanceModel

__all__ = [
    "check_gate_prior",
    "check_guide",
    "check_likelihood",
    "check_operation_prior",
    "check_weight_prior",
]


def check_gate_prior(prior: Any, edges: Edges, like: Tensor) -> Tensor:
    """Return the fixed log-odds of a prior over gates, after a check of all that it returns.

    Args:
        prior: The user's `GatePrior`.
        edges: The edges to gate.
        like: A tensor of the network, for type and device.

    Raises:
        TypeError: If a method is missing or returns another kind of value.
        ValueError: If a shape is wrong, or `sample` draws other sites than `latents` lists.
    """
    what = _part(prior, "gate_prior", ("log_odds", "latents", "sample"))
    wanted = ((edges.num_edges,), "one log-odds for each edge, in nats")
    log_odds = _tensor(prior.log_odds(edges), f"{what}.log_odds(edges)", *wanted).to(like)
    latents = _latents(prior.latents(edges), f"{what}.latents(edges)")
    returned = _drawn(lambda: prior.sample(log_odds, edges), what, latents)
    if returned is not None or not latents:
        _tensor(returned, f"{what}.sample(log_odds, edges)", *wanted)
    return log_odds


def check_operation_prior(prior: Any, edges: Edges, like: Tensor) -> Tensor:
    """Return the fixed logits of a prior over operations, after a check of all that it returns.

    Args:
        prior: The user's `OperationPrior`.
        edges: Edges with operations.
        like: A tensor of the network, for type and device.

    Raises:
        TypeError: If a method is missing or returns another kind of value.
        ValueError: If a shape is wrong, or `sample` draws other sites than `latents` lists.
    """
    what = _part(prior, "operation_prior", ("logits", "latents", "sample"))
    shape = (len(edges.operations), max(group.num_edges for group in edges.operations))
    wanted = (shape, "a row for each edge of the graph and a column for each operation, in nats")
    logits = _tensor(prior.logits(edges), f"{what}.logits(edges)", *wanted).to(like)
    latents = _latents(prior.latents(edges), f"{what}.latents(edges)")
    returned = _drawn(lambda: prior.sample(logits, edges), what, latents)
    if returned is not None or not latents:
        _tensor(returned, f"{what}.sample(logits, edges)", *wanted)
    return logits


def check_weight_prior(prior: Any, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the parameters that are latent, after a check of a prior over weights.

    Args:
        prior: The user's `WeightPrior`.
        parameters: The network's parameters by name.

    Raises:
        TypeError: If a method is missing or returns another kind of value.
        ValueError: If a shape or a name is wrong, or `sample` draws other sites than `latents`
            lists.
    """
    what = _part(prior, "weight_prior", ("latents", "latent_parameters", "sample"))
    latents = _latents(prior.latents(parameters), f"{what}.latents(parameters)")
    names = tuple(prior.latent_parameters(parameters))
    unknown = [name for name in names if name not in parameters]
    if unknown:
        raise ValueError(
            f"Expected {what}.latent_parameters(parameters) to return names out of "
            f"{list(parameters)}, but got {unknown}."
        )
    made = _drawn(lambda: prior.sample(parameters), what, latents)
    if made is None and latents:
        return names
    returned = f"{what}.sample(parameters)"
    if not isinstance(made, Mapping) or set(made) != set(parameters):
        got = sorted(made) if isinstance(made, Mapping) else type(made).__name__
        raise (ValueError if isinstance(made, Mapping) else TypeError)(
            f"Expected {returned} to return a mapping of all parameters {sorted(parameters)}, but "
            f"got {got}. Return point estimates as they are given."
        )
    for name, parameter in parameters.items():
        _tensor(made[name], f"{returned}[{name!r}]", tuple(parameter.shape), "as it is given")
    return names


def check_likelihood(likelihood: Likelihood, outputs: Tensor) -> Any:
    """Return the distribution of the targets, after a check of a user's likelihood.

    Args:
        likelihood: The likelihood.
        outputs: ``(num_examples, num_outputs)`` outputs of the network.

    Raises:
        TypeError: If it does not return a distribution, or its mean is no tensor.
        ValueError: If its number of outputs is no number, or a shape is wrong.
    """
    what = f"the likelihood {type(likelihood).__name__}"
    wanted = likelihood.num_outputs()
    if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
        raise ValueError(
            f"Expected {what}.num_outputs() to return a positive integer, or None for any number, "
            f"but got {wanted!r}."
        )
    if outputs.ndim != 2 or (wanted is not None and outputs.shape[1] != wanted):
        raise ValueError(
            f"Expected the network's outputs of shape (num_data, {wanted or 'num_classes'}) for "
            f"{type(likelihood).__name__}, but got {tuple(outputs.shape)}. Change the last layer."
        )
    distribution: Any = likelihood(outputs)
    if not hasattr(distribution, "batch_shape") or not hasattr(distribution, "log_prob"):
        raise TypeError(
            f"Expected {what} to return a distribution of the targets for the outputs of the "
            f"network, but got {type(distribution).__name__}. Return one of pyro.distributions."
        )
    num, batch = len(outputs), tuple(distribution.batch_shape)
    if batch[:1] != (num,):
        raise ValueError(
            f"Expected {what} to return a distribution of batch shape ({num},), one for each "
            f"example, but got {batch} for outputs of shape {tuple(outputs.shape)}. Do not average "
            "over the examples."
        )
    mean = likelihood.mean(outputs)
    target = batch + tuple(distribution.event_shape)
    if likelihood.task == "classification":
        ok = isinstance(mean, Tensor) and mean.shape[:1] == (num,)
        target = (*target, outputs.shape[1]) if outputs.shape[1] > 1 else target
    else:
        ok = isinstance(mean, Tensor) and tuple(mean.shape) == target
    if not ok:
        got = tuple(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
        raise ValueError(
            f"Expected {what}.mean(outputs) of shape {target}, as its distribution of the targets "
            f"has it, but got {got}. A column is squeezed with outputs.squeeze(-1), in both."
        )
    return distribution


def check_guide(guide: nn.Module, model: RelevanceModel, x: Tensor, y: Tensor) -> None:
    """Check the sites that a guide draws, and what it says of them.

    A guide that makes its parameters at its first call makes them here.

    Args:
        guide: The user's guide.
        model: The model whose sites it draws.
        x: ``(num_examples, ...)`` inputs.
        y: ``(num_examples, ...)`` targets.

    Raises:
        TypeError: If it cannot be called without data, or an answer is no tensor.
        ValueError: If a shape or a name is wrong.
    """
    name = type(guide).__name__
    per_example = model.noise == "per_example"
    drawn = _sites(lambda: guide(x, y))
    _check_sites(drawn, _site_shapes(model, len(x) if per_example else None), name)
    try:
        drawn = _sites(guide)
    except TypeError as error:
        raise TypeError(
            "Expected a guide that can be called without data, as the posterior is sampled, but "
            f"{name}.forward() fails: {error}. Give x and y the default None."
        ) from error
    _check_sites(drawn, _site_shapes(model, 1 if per_example else None), name)
    if isinstance(guide, RelevanceGuide):
        _check_answers(guide, model, name)


def _site_shapes(model: RelevanceModel, num_examples: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of each latent site of the model, with noise per example if there is any."""
    shapes = {latent.name: tuple(latent.initial.shape) for latent in model.latents()}
    if model.has_gates:
        edges = tuple(model.prior_log_odds.shape)
        shapes["gate"] = edges if num_examples is None else (num_examples, *edges)
    if model.has_operations:
        shapes["operation"] = tuple(model.prior_operation_logits.shape)
    return shapes


def _check_sites(drawn: Mapping[str, Any], shapes: Mapping[str, Any], guide: str) -> None:
    for site, wanted in shapes.items():
        if site in drawn and tuple(drawn[site]["value"].shape) != wanted:
            raise ValueError(
                f"Expected site {site!r} of the guide {guide} of shape {wanted}, as the model has "
                f"it, but got {tuple(drawn[site]['value'].shape)}."
            )


def _check_answers(guide: Any, model: RelevanceModel, name: str) -> None:
    """Check the answers of a `RelevanceGuide` against the model and its own parameters."""
    named = dict(guide.named_parameters())
    unknown = [one for one in guide.gate_parameters if one not in named]
    if unknown and model.has_gates:  # a class may name parameters that it makes for gates alone
        raise ValueError(
            f"Expected {name}.gate_parameters to name parameters of the guide, {sorted(named)}, "
            f"but got {unknown}."
        )
    shapes = {latent.name: tuple(latent.initial.shape) for latent in model.latents()}
    log_odds = guide.inclusion_log_odds() if model.has_gates else None
    if log_odds is not None:
        wanted = tuple(model.prior_log_odds.shape)
        _tensor(log_odds, f"{name}.inclusion_log_odds()", wanted, "one log-odds for each edge")
    logits = guide.choice_logits() if model.has_operations else None
    if logits is not None:
        wanted = tuple(model.prior_operation_logits.shape)
        _tensor(logits, f"{name}.choice_logits()", wanted, "a row for each edge of the graph")
    answered = {"latent_means()": guide.latent_means() or {}}
    if model.has_gates:
        answered["used_entries(gates)"] = guide.used_entries(torch.ones_like(model.prior_log_odds))
    for call, values in answered.items():
        for site, value in values.items():
            if site not in shapes:
                raise ValueError(
                    f"Expected {name}.{call} to name latent sites of the model, {sorted(shapes)}, "
                    f"but got {site!r}."
                )
            _tensor(value, f"{name}.{call}[{site!r}]", shapes[site], "as the site")


def _part(part: Any, argument: str, methods: Sequence[str]) -> str:
    """Return what a part is called in sentences, after a check of its methods."""
    if isinstance(part, type):
        raise TypeError(
            f"Expected {argument} as an object, but got the class {part.__name__}. Call it: "
            f"{argument}={part.__name__}(...)."
        )
    name = type(part).__name__
    missing = [method for method in methods if not callable(getattr(part, method, None))]
    if missing:
        raise TypeError(
            f"Expected {argument} to have the methods {list(methods)}, but {name} has no "
            f"{', '.join(missing)}. Its protocol is in pr.priors."
        )
    return f"{argument} {name}"


def _tensor(value: Any, call: str, shape: tuple[int, ...], meaning: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Expected {call} to return a tensor of shape {shape} ({meaning}), but got "
            f"{type(value).__name__}."
        )
    if tuple(value.shape) != shape:
        raise ValueError(
            f"Expected {call} to return a tensor of shape {shape} ({meaning}), but got "
            f"{tuple(value.shape)}."
        )
    return value


def _latents(latents: Any, call: str) -> tuple[Latent, ...]:
    listed = tuple(latents) if isinstance(latents, Sequence) else (latents,)
    for latent in listed:
        if not isinstance(latent, Latent):
            raise TypeError(
                f"Expected {call} to return a tuple of priors.Latent, but got "
                f"{type(latent).__name__}. Return () where there is nothing to draw."
            )
    return listed


def _drawn(sample: Any, what: str, latents: Sequence[Latent]) -> Any:
    """Return what a prior's `sample` returns, after a check of the sites that it draws.

    ``None`` where the prior is improper, so that nothing can be drawn from it.
    """
    returned: Any = None

    def call() -> None:
        nonlocal returned
        returned = sample()

    shapes = {latent.name: tuple(latent.initial.shape) for latent in latents}
    try:
        drawn = {name: msg for name, msg in _sites(call).items() if not msg["is_observed"]}
    except NotImplementedError:
        return None
    if set(drawn) != set(shapes):
        raise ValueError(
            f"Expected {what}.sample to draw the sites that its latents lists, {sorted(shapes)}, "
            f"but it draws {sorted(drawn)}."
        )
    for site, wanted in shapes.items():
        if tuple(drawn[site]["value"].shape) != wanted:
            raise ValueError(
                f"Expected {what}.sample to draw site {site!r} of shape {wanted}, the shape of its "
                f"initial value in latents, but got {tuple(drawn[site]['value'].shape)}."
            )
    return returned


def _sites(call: Any) -> dict[str, Any]:
    """Return the messages of the sites of a call, by name; global state stays as it was.

    Generators are not seeded anew: a guide may make its parameters here, other ones in each chain.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    collected = CollectMessenger()
    generators = torch.random.fork_rng(devices=devices)
    with generators, local_pyro(), torch.no_grad(), poutine.block(), collected:
        call()
    return collected.sites
