"""Exact pruning: from a network and a mask to a smaller network that computes the same.

`apply_mask` keeps all shapes and writes zeros. `prune` removes the edges that are not kept,
compares both networks on an example and reports the comparison in a `Receipt`. Where pruning
changes numbers in ``forward()``, the result is a list of operations (``rewriting``,
``description``). `PrunedNetwork` is saved without code; ``export`` writes files for other software.
"""

from __future__ import annotations

from pyro_relevance.surgery.export import ExportReceipt, export_onnx, export_torch
from pyro_relevance.surgery.pruned_network import PrunedNetwork, load_pruned
from pyro_relevance.surgery.pruning import apply_mask, prune
from pyro_relevance.surgery.publishing import ModelCard, from_pretrained, save_pretrained
from pyro_relevance.surgery.receipt import Receipt

__all__ = [
    "apply_mask",
    "prune",
    "PrunedNetwork",
    "load_pruned",
    "Receipt",
    "ExportReceipt",
    "export_onnx",
    "export_torch",
    "ModelCard",
    "from_pretrained",
    "save_pretrained",
]
