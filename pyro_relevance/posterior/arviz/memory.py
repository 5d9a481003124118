"""The peak memory of a conversion to ArviZ, estimated before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from pyro_relevance.edges.find import EdgeGroup
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["MEMORY_LIMIT", "check_memory"]

MEMORY_LIMIT = 2 * 2**30
"""Bytes that one conversion may hold at its peak."""


def check_memory(
    posterior: Posterior,
    groups: Sequence[EdgeGroup],
    rows: Sequence[tuple[Tensor, Tensor | None] | None],
    num_samples: int,
    seed: int,
    *,
    sites: bool | None,
) -> bool:
    """Refuse a conversion whose peak memory, scaled up from two draws, exceeds the limit.

    Returns:
        Whether latent sites are written: as asked, or where ``sites`` is ``None`` if they fit.
    """
    probe = posterior.sample(2, seed=seed)
    tensors = [*probe.gates.values(), *probe.inclusion_probability.values()]
    if posterior.edges.operations:
        tensors += [*probe.operations.values(), *probe.operation_probability.values()]
    # `weights` has one draw where the weights are a point estimate
    tensors += [weight for weight in probe.weights.values() if weight.shape[1] == 2]
    per_draw = sum(t.numel() * t.element_size() for t in tensors) // 2
    per_draw += 4 * posterior.num_chains * posterior.edges.num_edges  # effects of all groups
    # posterior: gate 1 byte, probability twice 4; prior: the same, and its draws 8
    per_draw += posterior.num_chains * sum(26 * group.num_edges for group in groups)
    for pair in rows:
        if pair is None:
            continue
        one = posterior.predict(pair[0][:1], num_samples=1, seed=seed)
        outputs = [one.outputs, one.mean, one.sample]
        bytes_each = sum(t.numel() * t.element_size() for t in outputs) + 12 * posterior.num_chains
        per_draw += bytes_each * len(pair[0])
    if sites is not False:
        # The sites as they are drawn and as they are written; weights are written once more.
        tensors = list(posterior.sample_sites(2, seed=seed).values())
        extra = sum(t.numel() * t.element_size() for t in tensors)
        drawn = [weight for weight in probe.weights.values() if weight.shape[1] == 2]
        extra += sum(t.numel() * t.element_size() for t in drawn) // 2
        if sites is None:
            sites = (per_draw + extra) * num_samples <= MEMORY_LIMIT
        per_draw += extra if sites else 0
    needed = per_draw * num_samples
    if needed > MEMORY_LIMIT:
        raise ValueError(
            f"Expected a conversion within {MEMORY_LIMIT / 2**30:.3g} GiB, but got about "
            f"{needed / 2**30:.3g} GiB for {num_samples} draws of {posterior.num_chains} chains. "
            "Pass fewer "
            f"num_samples (at most {MEMORY_LIMIT // per_draw}), or some of the edge groups in "
            "groups=, or sites=False."
        )
    return sites
