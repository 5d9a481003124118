"""Ordinary networks of the experiments; none of them knows about edges or gates."""

from pyro_relevance.networks.mlp import MLP, LeNet300100

__all__ = ["MLP", "LeNet300100"]
