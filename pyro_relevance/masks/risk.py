"""The risk that a mask accepts, under the posterior that made it.

With inclusion probability p_e of edge e, keeping an edge is a false discovery with probability
1 - p_e, and removing it is a false omission with probability p_e. The risk of a mask are sums and
means of these.

References:
    Newton, Noueiry, Sarkar and Ahlquist, Detecting differential gene expression with a
    semiparametric hierarchical mixture method, Biostatistics 2004.
    Mueller, Parmigiani and Rice, FDR and Bayesian multiple comparisons rules, Bayesian Statistics
    8, 2006.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Risk"]


@dataclass(frozen=True, slots=True)
class Risk:
    """Expected errors of a mask over the candidate edges; smaller = safer.

    Args:
        expected_false_discoveries: Number of kept edges expected to be irrelevant, sum of 1 - p
            over the kept.
        false_discovery_rate: Mean of 1 - p over the kept edges (fraction); 0 where nothing is kept.
        expected_false_omissions: Number of removed edges expected to be relevant, sum of p over the
            removed.
        false_omission_rate: Mean of p over the removed edges (fraction); 0 where none is removed.

    Example:
        >>> risk = Risk.of({"inputs": torch.tensor([True, True, False])},
        ...                {"inputs": torch.tensor([1.0, 0.75, 0.25])})
        >>> risk.expected_false_discoveries, risk.false_discovery_rate, risk.false_omission_rate
        (0.25, 0.125, 0.25)
    """

    expected_false_discoveries: float
    false_discovery_rate: float
    expected_false_omissions: float
    false_omission_rate: float

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], inclusion_probability: Mapping[str, Tensor]) -> Risk:
        """Risk of keeping `kept` when the edges are relevant with `inclusion_probability`.

        Args:
            kept: Group name -> bool tensor of the group's shape, True = kept.
            inclusion_probability: Group name -> probabilities of the same shape; groups that it
                lacks are no candidates and do not count.
        """
        num_kept = num_removed = 0
        discoveries = omissions = 0.0
        for name, probability in inclusion_probability.items():
            keep = kept[name].cpu()
            p = probability.detach().cpu().to(torch.float64)
            discoveries += float((1 - p)[keep].sum())
            omissions += float(p[~keep].sum())
            num_kept += int(keep.sum())
            num_removed += int((~keep).sum())
        return cls(
            expected_false_discoveries=discoveries,
            false_discovery_rate=discoveries / num_kept if num_kept else 0.0,
            expected_false_omissions=omissions,
            false_omission_rate=omissions / num_removed if num_removed else 0.0,
        )

    def __str__(self) -> str:
        return (
            f"{_count(self.expected_false_discoveries)} of the kept edges are expected to be "
            f"irrelevant ({self.false_discovery_rate:.1%}), "
            f"{_count(self.expected_false_omissions)} of the pruned edges relevant "
            f"({self.false_omission_rate:.1%})"
        )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
