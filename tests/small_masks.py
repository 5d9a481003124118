"""Small masks and edges for the tests of masks and rules."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from pyro_relevance.edges.find import EdgeGroup, Edges, Slot
from pyro_relevance.masks import Mask


@dataclass
class FakePosterior:
    """A posterior without a model: probabilities of shape (num_chains, *group.shape)."""

    probability: dict[str, Tensor]
    edges: Edges | None = None

    @property
    def num_chains(self) -> int:
        return next(iter(self.probability.values())).shape[0]

    def inclusion_probability(self) -> dict[str, Tensor]:
        return self.probability


def two_group_edges() -> Edges:
    """Linear 3 -> 2 -> 1 with gates on inputs and hidden units."""
    groups = (
        EdgeGroup("inputs", "input", (3,), ("a", "b", "c"), (Slot("0.weight", 1, None),), ()),
        EdgeGroup(
            "0.units",
            "unit",
            (2,),
            ("0", "1"),
            (Slot("2.weight", 1, None),),
            (Slot("0.weight", 0, None), Slot("0.bias", 0, None)),
        ),
    )
    shapes = {"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)}
    return Edges(groups, (), shapes)


def one_group(*kept: bool) -> Mask:
    return Mask({"inputs": torch.tensor(kept)})


sixty_fourths = st.lists(st.integers(0, 64), min_size=1, max_size=9)
"""Numerators of probabilities."""


def count(mask: Mask) -> int:
    return mask.num_kept
