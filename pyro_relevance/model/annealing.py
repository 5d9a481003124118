"""KL warm-up for any model and guide: an effect handler that weighs all but the likelihood."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["AnnealMessenger"]


class AnnealMessenger(Messenger):
    r"""Scales the log-probability of all sites but the observed targets by ``weight``.

    Wrapped around both model and guide it turns the ELBO into
    :math:`E_q[\log p(D \mid w, \gamma)] - \beta\,KL(q \| p)`. A scale on the model alone would be
    ignored by an analytic KL (which reads the guide's), and a scale around the whole model would
    also weigh the likelihood.

    Args:
        weight: :math:`\beta > 0`; the sign of a tensor is not checked.
        likelihood_sites: Names of the sites that keep their weight.

    Raises:
        ValueError: If ``weight`` is not positive.
    """

    def __init__(self, weight: float | Tensor, likelihood_sites: Collection[str] = ("y",)) -> None:
        super().__init__()
        if not isinstance(weight, Tensor) and not weight > 0:
            raise ValueError(
                f"Expected a KL weight > 0, but got {weight}. Start a warm-up at a small number, "
                "not at zero."
            )
        self.weight = weight
        self.likelihood_sites = frozenset(likelihood_sites)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.likelihood_sites:
            msg["scale"] = msg["scale"] * self.weight
