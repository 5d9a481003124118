"""Primitive functions that an edge of a relaxed graph can be, and the registry that names them.

A primitive is made for a position in a graph, a :class:`Place`: how many features come in, how many
go out, and whether the resolution falls. A user adds one with a decorator::

    @graphs.primitive("attention")
    def attention(place: graphs.Place) -> nn.Module:
        return MyAttention(place.source, place.target)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Identity", "Place", "Zero", "make_primitive", "primitive", "primitives"]


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a primitive in a graph.

    Args:
        source: Features (or channels) that it reads.
        target: Features (or channels) that it makes.
        stride: Factor by which the resolution of an image falls.
        affine: Whether a normalisation has a scale and a shift of its own. Turn it off while
            several candidates share what follows them.
        statistics: Whether a normalisation keeps running statistics. Those of one choice of
            operations are wrong for another one.
    """

    source: int
    target: int
    stride: int = 1
    affine: bool = True
    statistics: bool = True


Primitive = Callable[[Place], nn.Module]

_REGISTRY: dict[str, Primitive] = {}


def primitive(name: str) -> Callable[[Primitive], Primitive]:
    """Return a decorator that registers a primitive.

    Args:
        name: What graphs, posteriors and figures call it; an identifier.

    Raises:
        ValueError: If the name is taken by another function, or is no identifier.

    Example:
        >>> @primitive("halve")
        ... def halve(place: Place) -> nn.Module:
        ...     return nn.AvgPool2d(2)
        >>> "halve" in primitives()
        True
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Expected the name of a primitive to be an identifier such as 'sep_conv_3x3', but got "
            f"{name!r}."
        )

    def register(make: Primitive) -> Primitive:
        known = _REGISTRY.get(name)
        where = (getattr(make, "__module__", ""), getattr(make, "__qualname__", ""))
        if known is not None and (known.__module__, known.__qualname__) != where:
            raise ValueError(
                f"Expected a new name, but {name!r} is already a primitive "
                f"({known.__module__}.{known.__qualname__}). Choose another name."
            )
        _REGISTRY[name] = make
        return make

    return register


def primitives() -> tuple[str, ...]:
    """Return the names of all primitives that are registered."""
    return tuple(_REGISTRY)


def make_primitive(name: str, place: Place) -> nn.Module:
    """Return a new module of a primitive.

    Args:
        name: Its name.
        place: Its position.

    Raises:
        ValueError: If the name is unknown, or the primitive does not fit the place.
        TypeError: If what it makes is not a module.
    """
    make = _REGISTRY.get(name)
    if make is None:
        raise ValueError(
            f"Expected one of the primitives {sorted(_REGISTRY)}, but got {name!r}. Register your "
            "own with @graphs.primitive."
        )
    module = make(place)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"Expected primitive {name!r} to make an nn.Module, but it made a "
            f"{type(module).__name__}."
        )
    return module


class Zero(nn.Module):
    """No connection: zeros of the shape that the target has.

    Args:
        place: Its position. Images have their channels in dimension 1 of 4, all else has its
            features in the last dimension.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.target, self.stride = place.target, place.stride

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        if x.ndim == 4:
            x = x[:, :1, :: self.stride, :: self.stride]
            return torch.zeros_like(x).expand(-1, self.target, -1, -1)
        return torch.zeros_like(x[..., :1]).expand(*x.shape[:-1], self.target)


class Identity(nn.Module):
    """The input itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x


@primitive("none")
def _none(place: Place) -> nn.Module:
    return Zero(place)


@primitive("identity")
def _identity(place: Place) -> nn.Module:
    if place.source != place.target or place.stride != 1:
        raise ValueError(
            f"Expected as many features after an identity as before, but got {place.source} before "
            f"and {place.target} after it (stride {place.stride}). Use 'linear', or "
            "'skip_connect', which changes sizes where it must."
        )
    return Identity()
