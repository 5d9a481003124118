"""A cut network as a list of operations, with the numbers in them that fit what is left.

Cutting heads of attention, or a whole layer, changes what is written into ``forward()``: the number
of heads, the sizes of parts, the call of a layer that is left with nothing to read. Here the
network is traced for any number of examples, and its operations are written down anew.
"""

from __future__ import annotations

import pyro_relevance.surgery.rewriting.rules  # noqa: F401  (adds its rules to the registry)
from pyro_relevance.surgery.rewriting.network import resized_network

__all__ = ["resized_network"]
