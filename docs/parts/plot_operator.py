"""An operator
===========

``find_edges`` follows units through the operators of a network. Units that pass through one that it does not know are not offered, and that is
the reason it gives. One decorated rule makes the operator known: it says which units meet in the result.
"""

import torch
from torch import Tensor, nn

import pyro_relevance as pr

# %%
# An operator of your own, as torch has them:


@torch.library.custom_op("tutorial::soft_clip", mutates_args=())
def soft_clip(x: Tensor) -> Tensor:
    """Return x / (1 + abs(x))."""
    return x / (1 + x.abs())


@soft_clip.register_fake
def _(x):
    return torch.empty_like(x)


class Network(nn.Module):
    """Two layers with the operator between them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, x):
        """Return one output."""
        return self.last(torch.ops.tutorial.soft_clip(self.first(x)))


network, x = Network(), torch.randn(20, 4)
try:
    print(pr.find_edges(network, example_input=x))
except ValueError as error:
    print(error)

# %%
# The rule
# --------
# A rule gets the labels of all units so far, the call and the operator's name, and returns the labels of the result. This
# operator works element by element, so an existing rule serves. ``saved=True`` lets files of pruned networks call it.


@pr.operators.operator("tutorial::soft_clip", saved=True)
def soft_clip_units(run, node, name):
    """Each unit of the result is the unit at the same position of the input."""
    return pr.operators.pointwise(run, node, name)


edges = pr.find_edges(network, example_input=x)
print(edges)

# %%
# ``prune`` then removes units around it, and compares.

keep = torch.tensor([True, False, True, True, False, True])
small = pr.prune(network, edges, pr.Mask({"first.units": keep}), example_input=x)
print(small.receipt)

# %%
# What is checked
# ---------------
# Labels of another shape are refused, with the operator's name. Registrations inside of ``temporary()`` end with the block.

with pr.operators.temporary():
    pr.operators.unregister("tutorial::soft_clip")

    @pr.operators.operator("tutorial::soft_clip")
    def wrong(run, node, name):
        """Return labels of no shape that anyone asked for."""
        return torch.zeros(3)

    try:
        pr.find_edges(network, example_input=x)
    except ValueError as error:
        print(error)
