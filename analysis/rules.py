"""The rule of the experiments: the median probability model, within a limit of parameters."""

from __future__ import annotations

from pyro_relevance import masks
from pyro_relevance.cost import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.posterior import Posterior

__all__ = ["median_within"]


def median_within(posterior: Posterior, limit: int) -> Mask:
    """Return the median probability model; where it has more parameters than the limit, cut it.

    Args:
        posterior: Posterior of one chain.
        limit: Parameters that may be left; beyond them the least probable edges go too.
    """
    mask = masks.median_probability(posterior)
    if masked_cost(posterior.edges, mask).num_nonzero <= limit:
        return mask
    return mask & masks.budget(posterior, num_parameters=limit)
