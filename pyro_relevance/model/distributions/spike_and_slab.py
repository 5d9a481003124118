"""The slab of a weight that is used where its gates are on, and is at its prior elsewhere.

The prior is the spike here: what a weight is while it has no effect. It costs nothing there, so the
KL of the slab counts only as often as the weight is used (Titsias and Lazaro-Gredilla, Spike and
slab variational inference for multi-task and multiple kernel learning, NeurIPS 2011; Carbonetto and
Stephens, Scalable variational inference for Bayesian variable selection in regression, Bayesian
Analysis 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence, register_kl

from pyro_relevance.model.distributions.normal import Normal

__all__ = ["Slab"]


class Slab(TorchDistribution):
    r"""Normal posterior of weights that are used with a given probability.

    .. math::
        q(w \mid \text{used}) = N(m, s^2), \qquad q(w \mid \text{not used}) = p(w), \qquad
        E[\mathrm{KL}(q(w \mid \cdot) \| p(w))] = u\, \mathrm{KL}(N(m, s^2) \| p(w))

    A draw is one of the slab: where the weight is not used its value has no effect, and whoever
    wants the joint draw puts a draw of the prior in its place. ``kl_divergence`` with a prior is
    the expected KL above, estimated from one draw of the slab where the prior has no KL with a
    Normal.

    Args:
        loc: ``(*shape)`` :math:`m`.
        scale: ``(*shape)`` :math:`s > 0`.
        use: ``(*shape)`` :math:`u` in [0, 1], probability that the weight is used; a gradient
            reaches it.

    Example:
        >>> weight = Slab(torch.zeros(2), 0.5 * torch.ones(2), torch.tensor([0.0, 1.0]))
        >>> kl_divergence(weight, Normal(torch.zeros(2), torch.ones(2)))
        tensor([0.0000, 0.3181])
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, use: Tensor) -> None:
        self.loc: Tensor
        self.scale: Tensor
        self.use: Tensor
        self.loc, self.scale, self.use = torch.broadcast_tensors(loc, scale, use)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def slab(self) -> Normal:
        """The posterior where the weight is used."""
        return Normal(self.loc, self.scale, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Slab | None = None) -> Slab:
        """Return the same distribution with its parameters expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        shape = torch.Size(batch_shape)
        return Slab(self.loc.expand(shape), self.scale.expand(shape), self.use.expand(shape))

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape)`` mean of the weight where it is used."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``(*batch_shape)`` variance of the weight where it is used."""
        return self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws of the slab that are differentiable in location and scale.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` weights.
        """
        return self.slab.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the slab.

        An ELBO that subtracts it, instead of asking for a KL, counts every weight as used: it is
        the smaller bound of the mean-field family.

        Args:
            value: ``(*sample_shape, *batch_shape)`` weights.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats.
        """
        log_density: Tensor = self.slab.log_prob(value)
        return log_density


@register_kl(Slab, Distribution)  # type: ignore[untyped-decorator]
def _kl_slab(q: Slab, p: Distribution) -> Tensor:
    try:
        divergence: Tensor = kl_divergence(q.slab, p)
    except NotImplementedError:
        if p.support is not constraints.real:
            raise
        value = q.slab.rsample()
        divergence = q.slab.log_prob(value) - p.log_prob(value)
    return q.use * divergence
