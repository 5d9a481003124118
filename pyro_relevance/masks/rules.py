"""Rules that look at each edge's score: above a number, or as many as a stated error rate allows.

Shared by all rules: `source` is a posterior of one chain or a mapping from group name to one score
per edge (tensor of the group's shape, larger = more relevant); `groups` names the candidate
groups (None: all), the others are kept whole. The result states its rule, and the risk over the
candidate groups where the scores are inclusion probabilities.

Where groups are nested (a unit and each of its weights), the probability of an edge's own gate
decides, not its product with the gates of the unit around it. The risk counts each gate once.
"""

from __future__ import annotations

import math
import warnings

import torch

from pyro_relevance.errors import ApproximationWarning
from pyro_relevance.masks.mask import Mask
from pyro_relevance.masks.source import Groups, Ranking, Source

__all__ = ["false_discovery_rate", "median_probability", "signal_to_noise", "threshold"]


def median_probability(source: Source, *, groups: Groups = None) -> Mask:
    """Mask of the median probability model: edges with inclusion probability above 1/2.

    Args:
        source: Posterior of one chain, or group name -> probabilities in [0, 1].
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where a score is not a probability, or a posterior has several chains.

    Example:
        >>> mask = median_probability({"inputs": torch.tensor([0.9, 0.5, 0.1])})
        >>> mask["inputs"].tolist(), round(mask.risk.false_discovery_rate, 3)
        ([True, False, False], 0.1)

    References:
        Barbieri and Berger, Optimal predictive model selection, Annals of Statistics 2004.
    """
    ranking = Ranking.read(source, groups, as_probability=True)
    return ranking.mask(ranking.scores > 0.5, "keep edges whose inclusion probability is above 1/2")


def threshold(source: Source, value: float, *, groups: Groups = None) -> Mask:
    """Mask of the edges whose score is strictly above `value`.

    Args:
        source: Posterior of one chain, or group name -> scores.
        value: Number that a kept edge's score exceeds, in the unit of the score.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where a score or `value` is NaN, or a posterior has several chains.
    """
    if math.isnan(value):
        raise ValueError(f"Expected a number as value, but got {value}.")
    ranking = Ranking.read(source, groups)
    name = "score" if ranking.probability is None else "inclusion probability"
    return ranking.mask(ranking.scores > value, f"keep edges whose {name} is above {value:g}")


def false_discovery_rate(source: Source, rate: float, *, groups: Groups = None) -> Mask:
    """Largest mask whose mean posterior probability of being irrelevant is at most `rate`.

    With the inclusion probabilities sorted, p_(1) >= p_(2) >= ..., it keeps the first

        max { k : (1/k) sum_{i<=k} (1 - p_(i)) <= rate }

    edges, none where no k qualifies. The rate is kept only as far as the probabilities are
    calibrated: with point estimates of the weights and a noise scale that is fixed too small they
    are not, since nothing then penalises an edge that fits noise. Use Gaussian weights, a learned
    noise scale, and prior odds that are right or learned (see analysis/README.md). Equal
    probabilities at the border are kept in the order of the groups and of the edges in each.

    Args:
        source: Posterior of one chain, or group name -> probabilities in [0, 1].
        rate: Accepted Bayesian false discovery rate, fraction in [0, 1].
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where `rate` or a score is not in [0, 1], or a posterior has several chains.

    Warns:
        ApproximationWarning: If the weights of the posterior are point estimates.

    Example:
        >>> mask = false_discovery_rate({"inputs": torch.tensor([0.5, 1.0, 0.25, 0.75])}, rate=0.25)
        >>> mask["inputs"].tolist(), mask.risk.false_discovery_rate
        ([True, True, False, True], 0.25)

    References:
        Newton, Noueiry, Sarkar and Ahlquist, Detecting differential gene expression with a
        semiparametric hierarchical mixture method, Biostatistics 2004.
        Mueller, Parmigiani and Rice, FDR and Bayesian multiple comparisons rules, Bayesian
        Statistics 8, 2006.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"Expected a rate in [0, 1], but got {rate}. Write 0.05 for five percent.")
    ranking = Ranking.read(source, groups, as_probability=True)
    if getattr(source, "weights_are_points", False):
        warnings.warn(
            f"The weights are point estimates: nothing penalises an edge that fits noise, and a "
            f"false discovery rate of {rate:g} is not kept. Test inputs with holdout_test, or use "
            "Gaussian weights and a learned noise scale.",
            ApproximationWarning,
            stacklevel=2,
        )
    irrelevant = torch.cumsum(1 - ranking.scores[ranking.order], dim=0)
    # The cumulative mean of an ascending sequence ascends, so the admissible k are the first ones.
    sizes = torch.arange(1, ranking.num_edges + 1, dtype=torch.float64)
    num_kept = int((irrelevant <= rate * sizes).sum())
    return ranking.top(
        num_kept,
        f"keep the most edges whose mean probability of being irrelevant is at most {rate:g}",
    )


def signal_to_noise(source: Source, value: float, *, groups: Groups = None) -> Mask:
    """Mask of the edges whose signal-to-noise ratio is strictly above `value`.

    The ratio is no probability, so no risk follows from it; `Mask.with_risk` adds it from inclusion
    probabilities.

    Args:
        source: Group name -> ratios >= 0 of the group's shape (infinity allowed), one chain of
            ``relevance.signal_to_noise(draws, edges)``.
        value: Ratio that a kept edge exceeds, >= 0.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        TypeError: Where `source` is a posterior or draws instead of ratios.
        ValueError: Where a ratio or `value` is negative or NaN.

    References:
        Graves, Practical variational inference for neural networks, NeurIPS 2011.
    """
    if hasattr(source, "inclusion_probability"):
        raise TypeError(
            f"Expected a mapping of group name to ratios, but got {type(source).__name__}. "
            "Compute them first: relevance.of_chain(relevance.signal_to_noise(draws, edges), 0)."
        )
    if not value >= 0:
        raise ValueError(f"Expected a ratio >= 0 as value, but got {value}.")
    ranking = Ranking.read(source, groups)
    for name, ratio in ranking.split(ranking.scores).items():
        if bool((ratio < 0).any()):
            raise ValueError(
                f"Expected ratios >= 0, but group {name!r} has {float(ratio.min()):.4g}. Take "
                "abs(mean) / sd."
            )
    return ranking.mask(
        ranking.scores > value, f"keep edges whose signal-to-noise ratio is above {value:g}"
    )
