r"""ELBOs that choose operations by what hard choices really cost, without a relaxation.

Both draw one operation for each edge of a graph, so that the network is the derived one at each
step, and estimate the gradient in the logits of

.. math::
    E_{z \sim q}[L(z)] + KL(q \| p), \qquad
    L(z) = -\frac{N}{B} \sum_{n \in batch} \log p(y_n \mid f(x_n; w, z))

from values of :math:`L`. An operation without a gradient (``none``) is treated like any other. All
other sites keep their reparameterised gradients.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyro_relevance.model.distributions import OneHotConcrete
from pyro_relevance.model.elbo import LeanELBO, guide_sites, model_terms
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.relaxations import one_hot

__all__ = ["LocalExpectationELBO", "ScoreFunctionELBO"]

SITE = "operation"
_OFF = -1e4
"""Logarithm of a gate that is off: exactly zero after the softmax."""


class ScoreFunctionELBO(LeanELBO):
    r"""Score function (REINFORCE) over operations, with a leave-one-out baseline.

    .. math::
        \frac{1}{S} \sum_s \Big(L(z_s) - \frac{1}{S - 1} \sum_{r \ne s} L(z_r)\Big)
        \nabla \log q(z_s)

    Unbiased. A step costs S forward and backward passes of derived networks.

    Args:
        num_samples: S, draws of the operations in each step, at least 2.

    Raises:
        ValueError: If ``num_samples`` is less than 2.

    References:
        Williams, Simple statistical gradient-following algorithms, 1992. Kool, van Hoof, Welling,
        Buy 4 REINFORCE samples, get a baseline for free, ICLR workshop 2019, equation 8.
    """

    def __init__(self, num_samples: int = 4) -> None:
        if num_samples < 2:
            raise ValueError(
                f"Expected num_samples >= 2, of which each is the baseline of the others, but got "
                f"{num_samples}."
            )
        super().__init__()
        self.num_samples = num_samples

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return a scalar with the value of the negative ELBO and its estimated gradient."""
        totals: list[Tensor] = []
        costs, scores = [], []
        with ExitStack() as stack:
            for _ in range(self.num_samples):
                sites = guide_sites(guide, args, kwargs)
                score = harden(sites)
                terms = model_terms(model, sites, args, kwargs)
                if not totals:
                    stack.enter_context(_resting(model))
                totals.append(_sum(terms))
                if score is None or not score.requires_grad:
                    break  # no operations: one draw is an unbiased estimate of all else
                # The KL of an autoregressive guide depends on what was drawn, too.
                costs.append(_likelihood(terms, sites) + terms[SITE])
                scores.append(score)
        total = torch.stack(totals).mean()
        if not scores:
            return total
        cost, number = torch.stack(costs).detach(), len(costs)
        baseline = (cost.sum() - cost) / (number - 1)
        surrogate = ((cost - baseline) * torch.stack(scores)).mean()
        return total + (surrogate - surrogate.detach())


class LocalExpectationELBO(LeanELBO):
    r"""Exact expectation over the operation of one edge at a time, the others as drawn.

    .. math::
        \sum_e \sum_k \nabla q_e(k)\, L(z_{-e}, k)

    Unbiased. A step costs one forward pass for the draw and one (without gradients) for each other
    operation of each edge: use it for graphs of few edges. Its gradient is less noisy than that of
    the score function with as many forward passes.

    References:
        Titsias, Lazaro-Gredilla, Local expectation gradients for black box variational inference,
        NeurIPS 2015, equation 9.

    Raises:
        ValueError: At the first call, if the guide's operations are not independent.
    """

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return a scalar with the value of the negative ELBO and its estimated gradient."""
        sites = guide_sites(guide, args, kwargs)
        score = harden(sites)
        if score is not None and not answers(guide).independent_operations:
            raise ValueError(
                f"Expected a guide whose edges choose their operations independently, but got "
                f"{type(guide).__name__}. Use MeanFieldGuide, or ScoreFunctionELBO."
            )
        terms = model_terms(model, sites, args, kwargs)
        total = _sum(terms)
        if score is None or not score.requires_grad:
            return total
        with _resting(model):
            drawn = sites[SITE]["value"]
            logits = _logits(sites[SITE]["fn"])
            known = _likelihood(terms, sites).detach()
            costs = known.expand(logits.shape).clone()
            present = logits > _OFF / 2
            choice = drawn.argmax(-1).tolist()
            for edge, here in enumerate(present.tolist()):
                for operation, possible in enumerate(here):
                    if possible and operation != choice[edge]:
                        value = drawn.clone()
                        value[edge] = _OFF
                        value[edge, operation] = 0.0
                        sites[SITE]["value"] = value
                        with torch.no_grad():
                            other = model_terms(model, sites, args, kwargs)
                        costs[edge, operation] = _likelihood(other, sites)
            sites[SITE]["value"] = drawn
        # A constant for each edge changes no gradient and keeps the numbers small.
        centred = torch.where(present, costs - known, 0.0)
        surrogate = (torch.softmax(logits, -1) * centred).sum()
        return total + (surrogate - surrogate.detach())


def harden(sites: dict[str, Any]) -> Tensor | None:
    """Replace the relaxed choice by the hard one, without a gradient.

    Args:
        sites: Messages of a guide's sites; that of the operations is changed.

    Returns:
        The log probability of the choice, a scalar; ``None`` where there are no operations.

    Raises:
        ValueError: If the guide draws operations from another distribution.
    """
    message = sites.get(SITE)
    if message is None:
        return None
    hot = one_hot(message["value"])
    message["value"] = (1.0 - hot) * _OFF
    return (torch.log_softmax(_logits(message["fn"]), dim=-1) * hot).sum()


def _logits(distribution: Any) -> Tensor:
    base = getattr(distribution, "base_dist", distribution)
    if not isinstance(base, OneHotConcrete):
        raise ValueError(
            f"Expected a guide that draws operations from OneHotConcrete, but got "
            f"{type(base).__name__}. Use MeanFieldGuide, or another ELBO."
        )
    return base.logits


def _likelihood(terms: dict[str, Tensor], sites: dict[str, Any]) -> Tensor:
    """What a choice costs beside its KL: the terms of the model's observed sites."""
    return _sum({name: term for name, term in terms.items() if name not in sites})


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([*terms.values()]).sum()


def _resting(model: Any) -> AbstractContextManager[None]:
    """Keep the running statistics of normalisation layers as they are, inside the block.

    Only the first forward pass of a step updates them. A foreign Pyro model has none.
    """
    if isinstance(model, RelevanceModel):
        return model.in_mode(update_statistics=False)
    return nullcontext()
