"""Independent draws of the same gates for every example of a batch, with one KL.

Separate noise for every example lowers the variance of the gradient (Kingma, Salimans, Welling,
Variational Dropout and the Local Reparameterization Trick, NeurIPS 2015). The objective does not
change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl

__all__ = ["PerExample"]


class PerExample(TorchDistribution):
    r"""One draw of a batch of variables for every example, counted once.

    .. math::
        v_n \sim q \text{ independently, } n = 1..B, \qquad
        \log p(v_{1..B}) := \frac{1}{B} \sum_{n=1}^{B} \sum_i \log p(v_{n,i})

    The ELBO is linear in the examples: each term E_q[log p(y_n | v)] keeps its value if it uses a
    draw of its own. The model still has *one* set of gates, and so one KL. ``log_prob`` is
    therefore a mean over the examples, not the joint density of the draws: differences of two of
    them estimate that KL with B draws. All dimensions are event dimensions: the batch shape is
    ``()``, no plate is needed and none scales the KL.

    Args:
        base: Distribution with batch shape ``(*batch_shape)`` and event shape ``(*event_shape)``,
            not made independent.
        num_examples: Number of examples B in the batch.

    Raises:
        ValueError: If ``num_examples`` is not positive.

    Example:
        >>> from pyro_relevance.model.distributions import LogitConcrete
        >>> PerExample(LogitConcrete(0.5, torch.zeros(3)), 64).rsample().shape
        torch.Size([64, 3])
    """

    arg_constraints = {}

    def __init__(self, base: TorchDistribution, num_examples: int) -> None:
        if num_examples < 1:
            raise ValueError(
                f"Expected num_examples >= 1, but got {num_examples}. Pass the batch size."
            )
        self.base = base
        self.num_examples = num_examples
        event_shape = (num_examples, *base.batch_shape, *base.event_shape)
        super().__init__(torch.Size(), torch.Size(event_shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws are differentiable: whether those of the base are."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> constraints.Constraint:
        """Support of the base, over all event dimensions."""
        return constraints.independent(self.base.support, 1 + len(self.base.batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: PerExample | None = None) -> PerExample:
        """Return the same distribution with another batch shape, in front of the examples.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        new = PerExample(self.base, self.num_examples)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return differentiable draws, independent over the examples.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, num_examples, *base.shape)`` values.
        """
        return self.base.rsample(self._base_shape(sample_shape))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws without a gradient, independent over the examples; see :meth:`rsample`."""
        return self.base.sample(self._base_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of one example's values, averaged over the examples.

        Args:
            value: ``(*sample_shape, num_examples, *base.shape)`` values.

        Returns:
            ``(*sample_shape)`` log densities in nats.
        """
        log_prob = self.base.log_prob(value)
        num_dims = len(self.base.batch_shape)
        if num_dims:
            log_prob = log_prob.flatten(-num_dims).sum(-1)
        return log_prob.mean(-1)

    def _base_shape(self, sample_shape: Sequence[int]) -> torch.Size:
        return torch.Size((*sample_shape, *self.batch_shape, self.num_examples))


@register_kl(PerExample, PerExample)  # type: ignore[untyped-decorator]
def _kl_per_example(q: PerExample, p: PerExample) -> Tensor:
    total = kl_divergence(q.base, p.base).sum()
    return total.expand(q.batch_shape)
