"""The fast walk: units followed layer by layer through elementwise functions, by ``torch.fx``."""

from __future__ import annotations

from pyro_relevance.edges.layerwise.units import follow_units

__all__ = ["follow_units"]
