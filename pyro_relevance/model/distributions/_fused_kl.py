r"""The KL of two Bernoulli variables for very many gates, with few reads of memory.

.. math::
    \mathrm{KL} = \sigma(a)\,(a - b) + \max(b, 0) + \log\frac{1 + e^{-|b|}}{1 + e^{a}},
    \qquad a = -|q|,\ b = -\mathrm{sign}(q)\,p

This is the formula of ``bernoulli_kl`` after the relabelling on <-> off, with one logarithm instead
of two softplus, the slowest functions in a step with a gate for each weight. The gradient is
explicit instead of traced by autograd:

.. math::
    \partial_q = \sigma(q)\,\sigma(-q)\,(q - p), \qquad \partial_p = \sigma(p) - \sigma(q)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["LARGE", "FusedKl", "minus_sign"]

LARGE = 4096
"""Number of gates from which the fused form is faster; below it, Python costs more than memory."""


class FusedKl(torch.autograd.Function):
    """``FusedKl.apply(q, p)`` for log-odds of the same shape and type."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, p: Tensor) -> Tensor:
        """Return the divergence, ``(*shape)`` in nats."""
        a = q.abs().neg_()
        b = minus_sign(q) * p
        odds = a.exp()
        on = (odds + 1.0).reciprocal_()
        ratio = b.abs().neg_().exp_().sub_(odds).mul_(on)
        kl = _log1p_(ratio)
        return kl.add_(odds.mul_(on).mul_(a.sub_(b))).add_(b.clamp_(min=0.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the log-odds."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients in both log-odds."""
        q, p = ctx.saved_tensors
        of_q = of_p = None
        if ctx.needs_input_grad[0]:
            of_q = torch.sigmoid(q) * torch.sigmoid(-q) * (q - p) * grad
        if ctx.needs_input_grad[1]:
            flip = minus_sign(q)  # so that neither probability is near 1
            of_p = (torch.sigmoid(p * flip) - torch.sigmoid(q * flip)) * flip * grad
        return of_q, of_p


def minus_sign(value: Tensor) -> Tensor:
    """Return -1 where ``value`` is positive, else 1; at 0 either."""
    one = torch.ones((), dtype=value.dtype, device=value.device)
    return torch.copysign(one, -value)


def _log1p_(x: Tensor) -> Tensor:
    """Return log(1 + x) in the memory of ``x`` > -1, to a relative accuracy of a few roundings.

    log(1 + x) = x log(w) / (w - 1) with w = 1 + x as rounded (Goldberg, What every computer
    scientist should know about floating-point arithmetic, 1991, theorem 4). ``tiny`` makes the
    quotient 1 where w is 1.
    """
    tiny = torch.finfo(x.dtype).tiny
    w = x + 1.0
    difference = (w - 1.0).add_(tiny)
    return x.mul_(w.log_().add_(tiny).div_(difference))
