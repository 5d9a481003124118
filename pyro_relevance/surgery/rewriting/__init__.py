"""A pruned network as a list of operations, with numbers that fit the kept sizes.

Pruning heads of attention, or a whole layer, changes the code of ``forward()``: the number of
heads, the sizes of parts, the call of a layer whose inputs were all removed. Here the network is
traced for any number of examples, and its operations are written down with the new numbers.
"""

from __future__ import annotations

import pyro_relevance.surgery.rewriting.rules  # noqa: F401  (adds its rules to the registry)
from pyro_relevance.surgery.rewriting.network import resized_network

__all__ = ["resized_network"]
