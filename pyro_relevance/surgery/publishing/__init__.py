"""Pruned networks for others: a model card, and folders in the layout of Hugging Face.

A folder holds ``model.safetensors`` (all tensors, dense, under the names of the state),
``config.json`` (architecture and receipt) and ``README.md`` (the card). Nothing in it is code.
"""

from __future__ import annotations

from pyro_relevance.surgery.publishing.model_card import ModelCard
from pyro_relevance.surgery.publishing.pretrained import from_pretrained, save_pretrained

__all__ = ["ModelCard", "from_pretrained", "save_pretrained"]
