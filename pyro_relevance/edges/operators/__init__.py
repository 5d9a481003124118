"""What is known of each operator of a network: one registry, which a user extends by a decorator.

Each file holds a family (pointwise, spatial, layers, weights without a layer, recurrent layers,
normalisation, moves, products), each entry all that is known of an operator: which units meet in
its result, how it is pruned, rewritten, saved and counted. The walks of ``find_edges`` and the
surgery of ``prune`` look entries up by name.

An operator of your own needs one decorated rule. Rules that exist may be reused: here the result
is combined element by element, so the rule is `pointwise`::

    @torch.library.custom_op("mine::soft_clip", mutates_args=())
    def soft_clip(x: Tensor) -> Tensor:
        return x / (1 + x.abs())

    @soft_clip.register_fake
    def _(x):
        return torch.empty_like(x)

    @pr.operators.operator("mine::soft_clip", last_axis="apart", saved=True)
    def soft_clip_units(run, node, name):
        return pr.operators.pointwise(run, node, name)

After that, `find_edges` offers the units around ``soft_clip``, and `prune` removes them. ``saved``
lets files of pruned networks call it: register it before they are loaded. Entries last as long as
the process; inside of ``with pr.operators.temporary():`` they last as long as the block.
"""

from __future__ import annotations

from pyro_relevance.edges.operators.layers import layer
from pyro_relevance.edges.operators.moves import move
from pyro_relevance.edges.operators.normalisation import channels
from pyro_relevance.edges.operators.pointwise import along, pointwise, reduce, same, unknown
from pyro_relevance.edges.operators.products import matmul
from pyro_relevance.edges.operators.recurrent import recurrent
from pyro_relevance.edges.operators.registry import (
    LayerAxes,
    Operator,
    find,
    find_module,
    note,
    operator,
    registered,
    temporary,
    unregister,
)
from pyro_relevance.edges.operators.spatial import spatial

__all__ = [
    "Operator",
    "LayerAxes",
    "operator",
    "note",
    "unregister",
    "temporary",
    "pointwise",
    "channels",
    "same",
    "along",
    "reduce",
    "spatial",
    "layer",
    "matmul",
    "recurrent",
    "move",
    "unknown",
    "find",
    "find_module",
    "registered",
]
