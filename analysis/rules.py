"""The rules of the experiments: the median probability model within a limit, and filter norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance.edges.find import Edges
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["filter_ranks", "macs_share", "median_within"]


def median_within(posterior: Posterior, limit: int) -> Mask:
    """Return the median probability model; within a limit of parameters.

    Args:
        posterior: Posterior of one chain.
        limit: Most parameters that are kept. Where the median model has more, its least probable
            edges are removed, too.
    """
    mask = masks.median_probability(posterior)
    if masked_cost(posterior.edges, mask).num_nonzero <= limit:
        return mask
    return mask & masks.budget(posterior, num_parameters=limit)


def filter_ranks(network: nn.Module, edges: Edges) -> dict[str, Tensor]:
    """Return the rank of each channel's filter by L1 norm within its layer, in (0, 1].

    Groups whose channels are made by several layers (a residual stream) have no rank, as in Li et
    al., Pruning filters for efficient ConvNets, ICLR 2017.

    Args:
        network: The trained network.
        edges: Its channels.
    """
    parameters = {name: tensor.detach() for name, tensor in network.named_parameters()}
    ranks = {}
    for group in edges:
        makers = [slot for slot in group.producers if len(edges.shapes[slot.tensor]) > 1]
        if len(makers) == 1 and makers[0].index is None:
            weight = parameters[makers[0].tensor].movedim(makers[0].dim or 0, 0)
            norms = weight.abs().flatten(1).sum(1)
            ranks[group.name] = (norms.argsort().argsort() + 1.0) / len(norms)
    return ranks


def macs_share(edges: Edges) -> dict[str, float]:
    """Return the share of all multiply-accumulates that goes with one edge of each group."""
    mask = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    whole = masked_cost(edges, mask).num_macs
    shares = {}
    for group in edges:
        keep = mask[group.name].clone()
        keep.view(-1)[0] = False
        without = masked_cost(edges, mask | {group.name: keep}).num_macs
        shares[group.name] = 1 - without / whole
    return shares
