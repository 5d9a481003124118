r"""The plain variational family: every gate and every weight independent.

.. math::
    q(\gamma, w) = \prod_e Bernoulli(\gamma_e; \sigma(\ell_e)) \prod_i N(w_i; m_i, s_i^2)

The operations of relaxed graphs are independent too, one categorical variable for each edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor, nn

from pyro_relevance.model.elbo import announce_parameters
from pyro_relevance.model.guides._operations import OperationPosterior
from pyro_relevance.model.guides._weights import LatentPosteriors
from pyro_relevance.model.guides.protocol import RelevanceGuide

if TYPE_CHECKING:
    from pyro_relevance.model.model import RelevanceModel

__all__ = ["MeanFieldGuide"]


class MeanFieldGuide(nn.Module, RelevanceGuide):
    r"""Independent gates and weights, with all parameters made at construction.

    Args:
        model: The model whose sites are approximated.
        initial_log_odds: :math:`\ell_e` at the start, in nats; 2 starts each edge at an inclusion
            probability of 0.88.
    """

    vectorised = True
    independent_gates = True
    independent_operations = True
    gate_parameters: tuple[str, ...] = ("gate_log_odds",)

    def __init__(self, model: RelevanceModel, *, initial_log_odds: float = 2.0) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that its parameters are not registered twice
        self.latent_posteriors = LatentPosteriors(model.latents())
        if model.has_operations:
            self.operation_posterior = OperationPosterior(model)
            self.gate_parameters = (*self.gate_parameters, "operation_posterior.logits")
        if model.has_gates:
            start = torch.full_like(model.prior_log_odds, float(initial_log_odds))
            self.gate_log_odds = nn.Parameter(start)

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> dict[str, Tensor]:
        """Sample all latent sites; of the data only their number is used."""
        announce_parameters(self)
        values = self._sample_latents()
        model = self._model[0]
        if model.has_gates:
            values["gate"] = pyro.sample(
                "gate", model.gate_distribution(self.gate_log_odds, 1 if x is None else x.shape[0])
            )
        if model.has_operations:
            values["operation"] = self.operation_posterior(model)
        return values

    def _sample_latents(self) -> dict[str, Tensor]:
        """Sample the sites other than gates and operations."""
        values: dict[str, Tensor] = self.latent_posteriors()
        return values

    def inclusion_log_odds(self) -> Tensor | None:
        """See `RelevanceGuide`."""
        return self.gate_log_odds.detach() if self._model[0].has_gates else None

    def choice_logits(self) -> Tensor | None:
        """See `RelevanceGuide`."""
        return self.operation_posterior.logits.detach() if self._model[0].has_operations else None

    def latent_means(self) -> dict[str, Tensor]:
        """See `RelevanceGuide`."""
        return self.latent_posteriors.mean()
