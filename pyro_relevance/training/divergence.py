"""Where a loss stopped being finite: the parameter or Pyro site that shows it first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn
from torch.func import functional_call

from pyro_relevance.model.annealing import AnnealMessenger
from pyro_relevance.model.elbo import site_terms

__all__ = ["all_finite", "first_bad_site", "first_bad_tensor"]


def all_finite(named: Iterable[tuple[str, Tensor]]) -> bool:
    """Return whether no tensor has a NaN or infinite entry; the host waits once.

    Args:
        named: Names and parameters or buffers.
    """
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point()]
    with torch.no_grad():
        # A sum is finite only where all its terms are. Large terms may overflow: then they are
        # looked at one by one.
        total = sum((tensor.sum() for _, tensor in named), start=torch.zeros(()))
        return bool(torch.isfinite(total)) or first_bad_tensor(named) is None


def first_bad_tensor(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor with a NaN or infinite entry, or ``None``.

    Args:
        named: Names and parameters or buffers.
    """
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def first_bad_site(
    module: ELBOModule, state: Mapping[str, Tensor], x: Tensor, y: Tensor, kl_weight: float
) -> str | None:
    """Return the site whose contribution to the loss is not finite, else the largest one.

    Args:
        module: The module of any chain; its own tensors are not changed.
        state: Parameters and buffers of one chain (no chain dimension).
        x: ``(num_examples, ...)`` inputs of the minibatch.
        y: ``(num_examples, ...)`` targets of the minibatch.
        kl_weight: Present KL weight.

    Returns:
        The name, or ``None`` where the model has no site.
    """
    tensors = {f"module.{name}": tensor.clone() for name, tensor in state.items()}
    with torch.no_grad(), AnnealMessenger(kl_weight):
        terms: dict[str, Tensor] = functional_call(_SiteTerms(module), tensors, (x, y))
    sizes = {name: float(term.detach().abs()) for name, term in terms.items()}
    for name, size in sizes.items():
        if size != size or size == float("inf"):
            return name
    return max(sizes, key=sizes.__getitem__, default=None)


class _SiteTerms(nn.Module):
    """Sites' contributions to the negative ELBO under the names of an ELBO module."""

    def __init__(self, module: ELBOModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return site_terms(self.module.model, self.module.guide, x, y)
