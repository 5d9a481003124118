r"""What cross-validation does to p-values, and the correction of it.

The network of one fold is trained on the held-out rows of the others. Where it fits a chance
correlation of a column that does not matter, the same chance shows in several folds: fold
statistics are positively correlated. Let :math:`c_k` be the chance covariances of fold k and a
network that has learned nothing but them, :math:`b_k = \sum_{l \ne k} c_l`. Then

.. math::
    corr(b_k c_k, b_l c_l) = 1 / (K - 1), \qquad Var(\sum_k b_k c_k) = 2 \sum_k Var(b_k c_k),

so that z-scores of redraws are too large by at most :math:`\sqrt 2`, and by less where a network's
dependence on the column is not all chance. Between these bounds the factor is estimated from the
columns whose loss did not rise, as an empirical null (Efron, Large-scale inference, 2010).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["corrected", "null_spread", "z_score"]

PRIOR_COLUMNS = 12
"""Columns whose weight the bound has in the estimate; chosen on simulated noise (20 columns that do
not matter, 150 rows, networks that overfit), where it gives uniform p-values."""

FEW_HITS = 10


def z_score(p_value: float, num_hits: int, observed: float, losses: ArrayLike) -> float:
    """Return how many standard deviations the data are below their redraws.

    Where enough redraws are as good as the data it is the normal score of the p-value. Where few
    are, the rank has no more resolution, and a Pearson III distribution with the redraws' mean,
    spread and skewness continues it.

    Args:
        p_value: Monte Carlo p-value.
        num_hits: Redraws that are no worse than the data.
        observed: Loss of the data.
        losses: ``(num_redraws,)`` losses of the redraws.
    """
    values = np.asarray(losses, dtype=np.float64)
    if num_hits >= FEW_HITS:
        return float(stats.norm.isf(min(p_value, 1.0 - 1e-9)))
    mean, spread = float(values.mean()), float(values.std())
    if spread < 1e-9 * abs(mean):
        return 38.0 if observed < mean else -38.0
    standard = (observed - mean) / spread
    skewness = float(np.power((values - mean) / spread, 3).mean())
    log_p = stats.pearson3.logcdf(standard, skewness)
    # Far out the distribution of Pearson may have no mass: the normal one always has.
    if not np.isfinite(log_p):
        return float(min(-standard, 38.0))
    return float(stats.norm.isf(np.exp(max(log_p, -700.0))))


def null_spread(z: ArrayLike) -> float:
    r"""Return the standard deviation of z-scores of columns that do not matter, 1 .. sqrt(2).

    .. math:: \sigma^2 = (2 m_0 + \sum_{z < 0} z^2) / (m_0 + \#\{z < 0\})

    Columns that matter are hardly ever below zero, and those that do not are half of the time.

    Args:
        z: ``(num_columns,)`` z-scores; those that no network reads are ties, far below zero, and
            count as zero.
    """
    values = np.asarray(z, dtype=np.float64)
    below = values[values < 0]
    squares = np.where(below < -5.0, 0.0, np.square(below))
    variance = (2.0 * PRIOR_COLUMNS + squares.sum()) / (PRIOR_COLUMNS + len(below))
    return float(np.sqrt(np.clip(variance, 1.0, 2.0)))


def corrected(z: ArrayLike, spread: float, smallest: ArrayLike) -> NDArray[np.float64]:
    """Return p-values of z-scores whose null distribution is wider than one.

    Args:
        z: ``(num_columns,)`` z-scores.
        spread: Standard deviation under the null.
        smallest: ``(num_columns,)`` smallest p-values that the redraws can show.
    """
    p = stats.norm.sf(np.asarray(z, dtype=np.float64) / spread)
    return np.asarray(np.maximum(p, smallest))
