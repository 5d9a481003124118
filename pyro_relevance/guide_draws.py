"""One draw of a guide as plain tensors: hard gates, their probabilities, and the network's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pyro_relevance.distributions import LogitConcrete
from pyro_relevance.model import RelevanceModel

__all__ = ["DrawModule", "draw_chain", "mean_parameters"]


class _KeepMessenger(Messenger):
    """Keeps values and distributions of the sites of a guide."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self.distributions: dict[str, Any] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            self.values[msg["name"]] = msg["value"]
            self.distributions[msg["name"]] = msg["fn"]


class _ReplayMessenger(Messenger):
    """Gives sites the values of a guide; what is not among them keeps its own sampling."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
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

    def forward(self, *, from_prior: bool = False, site_means: Mapping[str, Tensor] | None = None) -> Any:
        """Return ``(gate, gate_probability or None, parameters)`` of one draw.

        Args:
            from_prior: Draw the gates from the prior instead of the guide (the weights are not drawn then).
            site_means: Values to use for the latent sites of the weights instead of a draw.
        """
        model = self.model
        parameters = dict(model.network.named_parameters())
        with _KeepMessenger() as kept:
            if not from_prior:
                self.guide()
            elif model.gate_prior is not None:
                log_odds = model.gate_prior.sample(model.prior_log_odds, model.edges)
                kept.values["gate"] = model.gate_distribution(log_odds).sample()
                kept.distributions["gate"] = model.gate_distribution(log_odds)
        gate = probability = None
        if model.has_gates:
            gate = model.relaxation.hard(kept.values["gate"])
            probability = _gate_probability(model, kept.distributions["gate"])
        if not from_prior:
            with _ReplayMessenger(kept.values if site_means is None else site_means):
                parameters = model.weight_prior.sample(parameters)
        return gate, probability, parameters


def _gate_probability(model: RelevanceModel, distribution: Any) -> Tensor | None:
    """Return P(hard gate = 1) of a relaxed gate, or ``None`` for a distribution of another kind."""
    base = getattr(distribution, "base_dist", distribution)
    if not isinstance(base, LogitConcrete):
        return None
    return torch.sigmoid(model.relaxation.inclusion_log_odds(base.logits, model.temperature))


def draw_chain(
    module: DrawModule, state: Mapping[str, Tensor], num_samples: int, *, from_prior: bool, vectorised: bool
) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
    """Draw from one chain.

    Args:
        module: Model and guide.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
        num_samples: Number of draws.
        from_prior: Draw the gates from the prior.
        vectorised: Make all draws in one call under ``vmap``.

    Returns:
        Gates ``(num_samples, num_edges)``, their probabilities (the same shape; ``None`` where the guide is of
        another kind), and parameters ``(num_samples or 1, *shape)``.
    """
    own = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    tensors = {name: value for name, value in state.items() if name in own}

    def draw(_: Tensor) -> Any:
        gate, probability, parameters = functional_call(module, tensors, (), {"from_prior": from_prior})
        fixed = {name: t for name, t in parameters.items() if t is tensors.get(f"model.network.{name}")}
        drawn = {name: t for name, t in parameters.items() if name not in fixed}
        names["drawn"] = list(drawn)
        return [t for t in (gate, probability) if t is not None], drawn

    names: dict[str, list[str]] = {}
    with torch.no_grad():
        if vectorised:
            gates, drawn = vmap(draw, randomness="different")(torch.zeros(num_samples))
        else:
            pairs = [draw(torch.zeros(())) for _ in range(num_samples)]
            gates = [torch.stack(parts) for parts in zip(*(pair[0] for pair in pairs), strict=True)]
            drawn = {name: torch.stack([pair[1][name] for pair in pairs]) for name in names["drawn"]}
    parameters = {}
    for name, _ in module.model.network.named_parameters():
        point = state[f"model.network.{name}"].detach().unsqueeze(0)
        parameters[name] = drawn.get(name, point)
    gate = gates[0] if gates else None
    return gate, gates[1] if len(gates) > 1 else None, parameters


def mean_parameters(module: DrawModule, state: Mapping[str, Tensor], num_samples: int = 500) -> dict[str, Tensor]:
    """Return the posterior mean of the network's parameters in one chain.

    Exact for the library's guides, whose sites are independent; the mean of ``num_samples`` draws for others.
    """
    latent_posteriors = getattr(module.guide, "latent_posteriors", None)
    if latent_posteriors is None:
        drawn = draw_chain(module, state, num_samples, from_prior=False, vectorised=False)[2]
        return {name: tensor.mean(0) for name, tensor in drawn.items()}
    own = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    tensors = {name: value for name, value in state.items() if name in own}
    with torch.no_grad():
        means = functional_call(_Means(module), {f"module.{n}": t for n, t in tensors.items()}, ())
        _, _, parameters = functional_call(module, tensors, (), {"site_means": means})
    return {name: tensor.detach() for name, tensor in parameters.items()}


class _Means(nn.Module):
    def __init__(self, module: DrawModule) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> dict[str, Tensor]:
        guide: Any = self.module.guide
        return guide.latent_posteriors.mean()  # type: ignore[no-any-return]
