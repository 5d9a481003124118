"""Chains as one program: several independent fits whose losses and gradients are computed together.

``LoopProgram`` holds one module per chain and calls them one after another; it works for every network, guide and
ELBO. ``VectorisedProgram`` stacks the parameters of all chains and runs the Pyro model once under ``torch.func.vmap``:
for small networks the cost of a step is that of Python, and it is then paid once for all chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor
from torch.func import functional_call, vmap

from pyro_relevance.annealing import AnnealMessenger
from pyro_relevance.elbo import site_terms

__all__ = ["LoopProgram", "Program", "VectorisedProgram", "first_bad_site"]


class Program(Protocol):
    """What the training loop asks of a set of chains."""

    modules: Sequence[ELBOModule]

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain, ``(num_chains,)`` in nats."""
        ...

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the tensors to optimise, with their names in the module."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, ``(num_chains, ...)`` each."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def gate_probability(self) -> Tensor | None:
        """Return the probability of each gate, ``(num_chains, num_edges)``, where the guides tell it."""
        ...


def _objective(module: ELBOModule, x: Tensor, y: Tensor, kl_weight: float, num_particles: int) -> Tensor:
    """Return the annealed negative ELBO, averaged over particles; only the first one moves BatchNorm statistics."""
    model: Any = module.model
    total: Any = 0.0
    with AnnealMessenger(kl_weight):
        for particle in range(num_particles):
            model.update_statistics = particle == 0
            total = total + module(x, y)
    model.update_statistics = True
    return total / num_particles if num_particles > 1 else total  # type: ignore[no-any-return]


class LoopProgram:
    """One module per chain, called one after another.

    Args:
        modules: ELBO modules, one per chain.
        num_particles: Draws of the guide in each step.
    """

    def __init__(self, modules: Sequence[ELBOModule], num_particles: int) -> None:
        self.modules = list(modules)
        self.num_particles = num_particles

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain."""
        losses = []
        for i, module in enumerate(self.modules):
            pair = (x[i], y[i]) if per_chain else (x, y)
            losses.append(_objective(module, *pair, kl_weight, self.num_particles))
        return torch.stack(losses)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the parameters of all chains that require gradients."""
        return [(n, p) for module in self.modules for n, p in module.named_parameters() if p.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, stacked over chains."""
        tensors = [_tensors(module) for module in self.modules]
        return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and buffers."""
        with torch.no_grad():
            for i, module in enumerate(self.modules):
                for name, tensor in _tensors(module).items():
                    tensor.copy_(state[name][i])

    def gate_probability(self) -> Tensor | None:
        """Return the probability of each gate."""
        if not _tells_log_odds(self.modules[0]):
            return None
        guides: list[Any] = [module.guide for module in self.modules]
        return torch.sigmoid(torch.stack([guide.inclusion_log_odds() for guide in guides]))


class VectorisedProgram:
    """All chains in one call.

    Args:
        modules: ELBO modules, one per chain, alike but for the values of parameters and buffers.
        num_particles: Draws of the guide in each step.
    """

    def __init__(self, modules: Sequence[ELBOModule], num_particles: int) -> None:
        self.modules = [modules[0]]
        self._objective = _Objective(modules[0])
        self.num_particles = num_particles
        parameters = [dict(module.named_parameters()) for module in modules]
        buffers = [dict(module.named_buffers()) for module in modules]
        self._parameters = {
            name: torch.stack([p[name].detach() for p in parameters]).requires_grad_(value.requires_grad)
            for name, value in parameters[0].items()
        }
        self._buffers = {name: torch.stack([b[name] for b in buffers]) for name in buffers[0]}

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain."""

        def loss(tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            arguments = (x, y, kl_weight, self.num_particles)
            return functional_call(self._objective, tensors, arguments)  # type: ignore[no-any-return]

        data = 0 if per_chain else None
        batched = vmap(loss, in_dims=(0, data, data), randomness="different")
        tensors = {f"module.{n}": t for n, t in (self._parameters | self._buffers).items()}
        return batched(tensors, x, y)  # type: ignore[no-any-return]

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the stacked parameters that require gradients."""
        return [(n, p) for n, p in self._parameters.items() if p.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return copies of the stacked parameters and buffers."""
        return {n: t.detach().clone() for n, t in (self._parameters | self._buffers).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and buffers."""
        with torch.no_grad():
            for name, tensor in (self._parameters | self._buffers).items():
                tensor.copy_(state[name])

    def gate_probability(self) -> Tensor | None:
        """Return the probability of each gate."""
        if not _tells_log_odds(self.modules[0]):
            return None
        log_odds = _LogOdds(self.modules[0].guide)
        stacked = {n: t.detach() for n, t in self._parameters.items() if n.startswith("guide.")}
        return torch.sigmoid(vmap(lambda t: functional_call(log_odds, t, ()))(stacked))


class _Objective(torch.nn.Module):
    """`_objective` as a module, so that ``functional_call`` can swap the tensors of the ELBO module under it."""

    def __init__(self, module: ELBOModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, y: Tensor, kl_weight: float, num_particles: int) -> Tensor:
        return _objective(self.module, x, y, kl_weight, num_particles)


class _LogOdds(torch.nn.Module):
    def __init__(self, guide: Any) -> None:
        super().__init__()
        self.guide = guide

    def forward(self) -> Tensor:
        return self.guide.inclusion_log_odds()  # type: ignore[no-any-return]


def _tells_log_odds(module: ELBOModule) -> bool:
    model: Any = module.model
    return bool(model.has_gates) and hasattr(module.guide, "inclusion_log_odds")


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def first_bad_site(
    module: ELBOModule, state: Mapping[str, Tensor], x: Tensor, y: Tensor, kl_weight: float
) -> str | None:
    """Return the parameter or site whose value or contribution to the loss is not finite, or ``None``.

    Args:
        module: The module of any chain.
        state: Parameters and buffers of one chain (no chain dimension).
        x: Inputs of the minibatch.
        y: Targets of the minibatch.
        kl_weight: Present KL weight.
    """
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            return f"parameter '{name}'"
    terms = _SiteTerms(module)
    tensors = {f"module.{name}": tensor for name, tensor in state.items()}
    with torch.no_grad(), AnnealMessenger(kl_weight):
        for name, term in functional_call(terms, tensors, (x, y)).items():
            if not bool(torch.isfinite(term).all()):
                return f"site '{name}'"
    return None


class _SiteTerms(torch.nn.Module):
    def __init__(self, module: ELBOModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return site_terms(self.module.model, self.module.guide, x, y)
