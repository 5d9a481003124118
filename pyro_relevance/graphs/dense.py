"""Primitives of networks for tables: linear maps with an activation, activations alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_relevance.graphs.primitives import Place, primitive

__all__ = ["ACTIVATIONS", "Sine"]


class Sine(nn.Module):
    """The sine of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``sin(x)``."""
        return torch.sin(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "sine": Sine,
}
"""The activations that are primitives alone, and after a linear map as ``linear_<name>``."""


@primitive("linear")
def linear(place: Place) -> nn.Module:
    """Return a linear map with a bias."""
    return nn.Linear(place.source, place.target)


def _register(name: str, activation: type[nn.Module]) -> None:
    def after_linear(place: Place) -> nn.Module:
        return nn.Sequential(nn.Linear(place.source, place.target), activation())

    def alone(place: Place) -> nn.Module:
        if place.source != place.target:
            raise ValueError(
                f"Expected as many features after '{name}' as before, but got {place.source} and "
                f"{place.target}. Use 'linear_{name}'."
            )
        return activation()

    after_linear.__qualname__, alone.__qualname__ = f"linear_{name}", name
    primitive(f"linear_{name}")(after_linear)
    primitive(name)(alone)


for _name, _activation in ACTIVATIONS.items():
    _register(_name, _activation)
