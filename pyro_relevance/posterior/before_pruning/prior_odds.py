r"""Masks under other prior odds, from one fit.

For independent gates the posterior odds of an edge are its prior odds times a likelihood ratio. The
ratio is read off the fit and kept:

.. math::
    \log\frac{P_\pi(\gamma_e = 1 \mid D)}{P_\pi(\gamma_e = 0 \mid D)} \approx
    \log\frac{P(\gamma_e = 1 \mid D)}{P(\gamma_e = 0 \mid D)} + \log\pi - \log\pi_0

It is exact where an edge's evidence does not depend on the other edges. Under other odds the others
are kept more or less often and the weights are fitted anew. In ``analysis/results/prior_odds.json``
the mean error of a probability against refits, with odds from 1:100 to 100:1, is at most .03 for
independent and .10 for correlated inputs of a linear model, towards keeping too little at small
odds, and .08 for the inputs of Boston; single edges are wrong by up to .9. Read it as a question
about the mask, not as a second fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_relevance._random import seeded
from pyro_relevance.masks import Mask
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.priors import IndependentPrior
from pyro_relevance.posterior.evaluation import quiet
from pyro_relevance.posterior.guide_draws import inclusion_log_odds

if TYPE_CHECKING:
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["PriorSensitivity", "prior_sensitivity"]


@dataclass(frozen=True, slots=True, eq=False)
class PriorSensitivity:
    """Inclusion of every edge at each of several prior odds.

    Args:
        prior_odds: ``(num_odds,)`` odds of an edge being relevant before the data.
        log_odds: Group -> ``(num_odds, *group.shape)`` posterior log-odds, in nats.
        inclusion_probability: Group -> ``(num_odds, *group.shape)``.
        expected_size: ``(num_odds,)`` expected number of edges that are on.
        masks: The median probability mask at each of the odds.
    """

    prior_odds: Tensor
    log_odds: dict[str, Tensor]
    inclusion_probability: dict[str, Tensor]
    expected_size: Tensor
    masks: tuple[Mask, ...]

    @property
    def size(self) -> Tensor:
        """``(num_odds,)`` edges that the median probability mask keeps."""
        return torch.tensor([mask.num_kept for mask in self.masks])

    def critical_prior_odds(self) -> dict[str, Tensor]:
        """Prior odds at which each edge is as likely relevant as not.

        Returns:
            Group -> ``(*group.shape)``; an edge with small critical odds is kept also by sceptics.
        """
        first = torch.log(self.prior_odds[0])
        return {name: torch.exp(first - value[0]) for name, value in self.log_odds.items()}


def prior_sensitivity(
    posterior: Posterior,
    *,
    prior_odds: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
) -> PriorSensitivity:
    """How inclusion and the mask change with the prior odds, without another fit.

    The likelihood ratio of each edge is kept as the fit left it: see the module for the formula,
    and ``analysis/results/prior_odds.json`` for its error against refits.

    Args:
        posterior: Posterior of one chain, with independent gates and given prior odds.
        prior_odds: Odds of an edge being relevant before the data, the same for all edges.

    Raises:
        ValueError: If the posterior has several chains, the odds are not positive, gates depend on
            each other in the guide, or the prior odds are not given but learned.
    """
    if posterior.num_chains != 1:
        raise ValueError(
            f"Expected the posterior of one chain, but got {posterior.num_chains}. Pass "
            "posterior.chain(i)."
        )
    if not prior_odds or not all(math.isfinite(odds) and odds > 0 for odds in prior_odds):
        raise ValueError(f"Expected positive prior odds such as 0.01, but got {prior_odds!r}.")
    model = posterior.model
    if not isinstance(model.gate_prior, IndependentPrior):
        raise ValueError(
            "Expected gates with given prior odds, priors.IndependentPrior, but got "
            f"{type(model.gate_prior).__name__}. Other priors say themselves which odds are likely."
        )
    if not answers(posterior.guide).independent_gates:
        raise ValueError(
            f"Expected a guide with independent gates, but got {type(posterior.guide).__name__}. "
            "The odds of its gates depend on each other."
        )
    state = {name: tensor[0] for name, tensor in posterior.state.items()}
    with quiet(model), seeded(0, posterior.device):  # a guide that is called draws
        fitted = inclusion_log_odds(model, posterior.guide, state).double()
    # Chains may have priors of their own, which their state keeps.
    before = state.get("model.prior_log_odds", model.prior_log_odds)
    odds = torch.tensor(list(prior_odds), dtype=torch.float64)
    log_odds = fitted + odds.log()[:, None] - before.double()
    probability = posterior.edges.split(log_odds.sigmoid())
    return PriorSensitivity(
        odds,
        posterior.edges.split(log_odds),
        probability,
        log_odds.sigmoid().sum(1),
        tuple(
            _mask(posterior.edges.split(row.sigmoid()), value)
            for row, value in zip(log_odds, prior_odds, strict=True)
        ),
    )


def _mask(probability: dict[str, Tensor], odds: float) -> Mask:
    kept = {name: p > 0.5 for name, p in probability.items()}
    return Mask(
        kept,
        rule=f"inclusion probability above 0.5 at prior odds of {odds:g}",
        inclusion_probability=probability,
    )
