"""Draws of a guide as plain tensors: hard gates, their probabilities, network parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pyro_relevance.edges.find import Edges
from pyro_relevance.model.distributions import LogitConcrete, OneHotConcrete
from pyro_relevance.model.elbo import CollectMessenger
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.relaxations import one_hot
from pyro_relevance.posterior.draws import Draws

__all__ = [
    "ChainDraws",
    "DrawModule",
    "collect",
    "draw_chain",
    "inclusion_log_odds",
    "mean_network",
]


class ChainDraws(NamedTuple):
    """Draws of one chain.

    Args:
        sites: ``gate``, ``gate_probability`` (``(num_samples, num_edges)``), ``operation`` and
            ``operation_probability`` (``(num_samples, num_groups, num_operations)``): hard gates
            and their probabilities, as far as model and guide have them. Where they were asked
            for, ``"latent <site>"`` too: the model's latent sites as the guide sampled them.
        parameters: Parameter -> ``(num_samples or 1, *shape)``.
    """

    sites: dict[str, Tensor]
    parameters: dict[str, Tensor]


class _ReplayMessenger(Messenger):
    """Gives sites the values of a guide; sites without a value are sampled as usual.

    Args:
        values: Site -> value.
        used: Site -> 1 where an entry of the value is used; the others are drawn from the prior,
            given the sites before.
    """

    def __init__(
        self, values: Mapping[str, Tensor], used: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.values = values
        self.used = used or {}
        self.changed: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if not msg["is_observed"] and name in self.values:
            msg["value"] = self.values[name]
            if name in self.used:
                prior = msg["fn"].rsample()
                msg["value"] = torch.where(self.used[name] > 0, msg["value"], prior)
                self.changed[name] = msg["value"]
            msg["done"] = True


class DrawModule(nn.Module):
    """Model and guide under the names of an ELBO module, called to make one draw.

    Args:
        model: The model.
        guide: Its guide.
    """

    def __init__(self, model: RelevanceModel, guide: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.guide = guide

    def forward(
        self,
        *,
        from_prior: bool = False,
        site_means: Mapping[str, Tensor] | None = None,
        given: Mapping[str, Tensor] | None = None,
        with_latents: bool = False,
    ) -> Any:
        """Return ``(sites, parameters)`` of one draw, as in `ChainDraws`.

        Args:
            from_prior: Draw the gates from the prior instead of the guide (the weights are not
                drawn then).
            site_means: Values to use for the latent sites of the weights instead of a draw.
            given: Values of sites that the guide is conditioned on, such as ``gate``.
            with_latents: Return the latent sites too.
        """
        model = self.model
        parameters: dict[str, Tensor] = dict(model.network.named_parameters())
        with CollectMessenger() as collected:
            if from_prior:
                _draw_prior(model)
            else:
                # The guide draws the rest given these values, in its own order of sampling.
                with _ReplayMessenger(given or {}):
                    self.guide()
        values = {name: site["value"] for name, site in collected.sites.items()}
        sites: dict[str, Tensor] = {}
        if model.has_gates:
            sites["gate"] = model.relaxation.hard(values["gate"])
            probability = _gate_probability(model, collected.sites["gate"]["fn"])
            if probability is not None:
                sites["gate_probability"] = probability
        if model.has_operations:
            sites["operation"] = one_hot(values["operation"])
            base = getattr(collected.sites["operation"]["fn"], "base_dist", None)
            if isinstance(base, OneHotConcrete):
                sites["operation_probability"] = torch.softmax(base.logits, dim=-1)
        if not from_prior:
            used: dict[str, Tensor] = {}
            if site_means is None and model.has_gates:
                used = answers(self.guide).used_entries(sites["gate"])
            with _ReplayMessenger(values if site_means is None else site_means, used) as replayed:
                parameters = model.weight_prior.sample(parameters)
            values |= replayed.changed
        if with_latents:
            known = ("gate", "operation", *(latent.name for latent in model.latents()))
            sites |= {f"latent {name}": values[name] for name in known if name in values}
        return sites, parameters


def _draw_prior(model: RelevanceModel) -> None:
    if model.has_gates:
        assert model.gate_prior is not None
        log_odds = model.gate_prior.sample(model.prior_log_odds, model.edges)
        pyro.sample("gate", model.gate_distribution(log_odds))
    if model.has_operations:
        logits = model.operation_prior.sample(model.prior_operation_logits, model.edges)
        pyro.sample("operation", model.operation_distribution(logits))


def _gate_probability(model: RelevanceModel, distribution: Any) -> Tensor | None:
    """Return P(hard gate = 1) of a relaxed gate, or ``None`` for another distribution."""
    base = getattr(distribution, "base_dist", distribution)
    if not isinstance(base, LogitConcrete):
        return None
    return torch.sigmoid(model.relaxation.inclusion_log_odds(base.logits, model.temperature))


def draw_chain(
    module: DrawModule,
    state: Mapping[str, Tensor],
    num_samples: int,
    from_prior: bool = False,
    *,
    given: Mapping[str, Tensor] | None = None,
    with_latents: bool = False,
) -> ChainDraws:
    """Draw from one chain, in one call under ``vmap`` where the guide allows it.

    Args:
        module: Model and guide.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
        num_samples: Number of draws.
        from_prior: Draw the gates from the prior.
        given: Site -> value, ``(*shape)``: the guide is conditioned on it in every draw.
        with_latents: Keep the latent sites too.

    Raises:
        ValueError: If ``num_samples`` is not positive.
    """
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"Expected num_samples to be a positive integer, but got {num_samples!r}.")
    tensors = _own(module, state)
    point = {n: state[f"model.network.{n}"] for n, _ in module.model.network.named_parameters()}
    options = {"from_prior": from_prior, "given": given, "with_latents": with_latents}

    def draw(_: Tensor) -> Any:
        sites, parameters = functional_call(module, tensors, (), options)
        return sites, {name: t for name, t in parameters.items() if t is not point[name]}

    with torch.no_grad():
        sites, drawn = _repeated(
            draw, num_samples, answers(module.guide).vectorised and not from_prior
        )
    parameters = {n: drawn.get(n, value.detach().unsqueeze(0)) for n, value in point.items()}
    return ChainDraws(sites, parameters)


def _repeated(draw: Callable[[Tensor], Any], num_samples: int, vectorised: bool) -> Any:
    """Return pairs of mappings of draws, stacked."""
    if vectorised:
        try:
            return vmap(draw, randomness="different")(torch.zeros(num_samples))
        except RuntimeError:
            pass  # entries that are not used are drawn from a prior that vmap cannot draw from
    pairs = [draw(torch.zeros(())) for _ in range(num_samples)]
    return [
        {name: torch.stack([p[part][name] for p in pairs]) for name in pairs[0][part]}
        for part in (0, 1)
    ]


def collect(chains: Sequence[ChainDraws], edges: Edges) -> Draws:
    """Return the draws of all chains, by group.

    Args:
        chains: Draws of each chain, of the same guide.
        edges: The gated edges.
    """
    weights = {
        name: torch.stack([chain.parameters[name] for chain in chains])
        for name in chains[0].parameters
    }
    sites = {name: torch.stack([c.sites[name] for c in chains]) for name in chains[0].sites}
    parts: list[dict[str, Tensor]] = []
    for site, split in (("gate", edges.split), ("operation", edges.split_operations)):
        hard = sites.get(site)
        if hard is None:
            parts += [{}, {}]
            continue
        # A guide of another kind has no probabilities: the share of draws is used instead.
        probability = sites.get(f"{site}_probability")
        if probability is None:
            probability = hard.mean(1, keepdim=True).expand_as(hard)
        parts += [split(hard), split(probability)]
    gates, inclusion, operations, operation_probability = parts
    return Draws(gates, inclusion, weights, operations, operation_probability)


def inclusion_log_odds(
    model: RelevanceModel, guide: nn.Module, state: Mapping[str, Tensor]
) -> Tensor:
    """Return the log-odds of each hard gate in one chain, ``(num_edges,)`` in nats.

    Unlike the logarithm of a probability's odds they are exact where the probability rounds to one.

    Args:
        model: The model; `quiet` is in force.
        guide: A guide with independent gates.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
    """
    module = _LogOdds(DrawModule(model, guide))
    tensors = {f"module.{name}": t for name, t in _own(module.module, state).items()}
    with torch.no_grad():
        found: Tensor = functional_call(module, tensors, ())
    return found


def mean_network(
    module: DrawModule, state: Mapping[str, Tensor], num_samples: int = 500
) -> nn.Module:
    """Return a copy of the network with the posterior mean of its parameters in one chain.

    Exact for the library's guides, whose sites are independent; the mean of draws for others.

    Args:
        module: Model and guide; `quiet` is in force, so that the network has no hooks.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
        num_samples: Number of draws where draws are needed.
    """
    network = copy.deepcopy(module.model.network)
    parameters = _mean_parameters(module, state, num_samples)
    for name, parameter in network.named_parameters():
        parameter.data = parameters[name].detach().clone()
    for name, buffer in network.named_buffers():
        buffer.data = state[f"model.network.{name}"].clone()
    return network.requires_grad_(True).eval()


def _mean_parameters(
    module: DrawModule, state: Mapping[str, Tensor], num_samples: int
) -> dict[str, Tensor]:
    if answers(module.guide).latent_means() is None:
        drawn = draw_chain(module, state, num_samples).parameters
        return {name: tensor.mean(0) for name, tensor in drawn.items()}
    tensors = _own(module, state)
    with torch.no_grad():
        means = functional_call(_Means(module), {f"module.{n}": t for n, t in tensors.items()}, ())
        _, parameters = functional_call(module, tensors, (), {"site_means": means})
    found: dict[str, Tensor] = parameters
    return found


def _own(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    return {name: value for name, value in state.items() if name in own}


class _LogOdds(nn.Module):
    """The log-odds of a guide's gates under the names of an ELBO module."""

    def __init__(self, module: DrawModule) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> Tensor:
        model = self.module.model
        with CollectMessenger() as collected:
            self.module.guide()
        base: Any = collected.sites["gate"]["fn"]
        base = getattr(base, "base_dist", base)
        return model.relaxation.inclusion_log_odds(base.logits, model.temperature)


class _Means(nn.Module):
    """The means of a guide's sites under the names of an ELBO module."""

    def __init__(self, module: DrawModule) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> dict[str, Tensor]:
        means = answers(self.module.guide).latent_means()
        assert means is not None  # asked before
        return means
