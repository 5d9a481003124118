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
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_relevance.errors import ArchitectureError

__all__ = ["Identity", "Place", "Zero", "applied", "make_primitive", "primitive", "primitives"]


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
        ArchitectureError: If it fails.
        TypeError: If what it makes is not a module.
    """
    make = _REGISTRY.get(name)
    if make is None:
        raise ValueError(
            f"Expected one of the primitives {sorted(_REGISTRY)}, but got {name!r}. Register your "
            "own with @graphs.primitive."
        )
    try:
        module = make(place)
    except (TypeError, AttributeError) as error:
        raise ArchitectureError(
            f"Expected primitive {name!r} to make a module from {place}, but it fails: {error}."
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"Expected primitive {name!r} to make an nn.Module, but it made a "
            f"{type(module).__name__}."
        )
    return module


def applied(name: str, operation: nn.Module, x: Tensor, where: tuple[str, Place] | None) -> Any:
    """Return what an operation makes, after a check that it fits its place.

    Other shapes would be broadcast in silence, or fail where nothing says which primitive it was.

    Args:
        name: Name of the primitive.
        operation: Its module.
        x: Its input.
        where: The edge in words and the place, or ``None`` where it is not known.

    Raises:
        ArchitectureError: If the operation fails, or its result has another shape.
    """
    if where is None or isinstance(x, fx.Proxy):  # torch.fx records the call, there is no shape
        return operation(x)
    place = where[1]
    try:
        made = operation(x)
    except (RuntimeError, TypeError, AttributeError, IndexError) as error:
        if type(error) not in (RuntimeError, TypeError, AttributeError, IndexError):
            raise  # out of memory, say, or what torch tells itself while it traces
        raise ArchitectureError(f"{_asked(name, x, where)}, but it fails: {error}") from error
    if not isinstance(made, Tensor):
        got = type(made).__name__
        raise ArchitectureError(f"{_asked(name, x, where)}, but it made a {got} and not a tensor.")
    # Sizes are compared as torch.export has them, where the number of examples is a symbol.
    axis = 1 if made.ndim == 4 else -1
    if made.ndim < 2 or made.shape[0] != x.shape[0] or made.shape[axis] != place.target:
        raise ArchitectureError(
            f"{_asked(name, x, where)}, but it made shape {tuple(made.shape)}. Images have their "
            "channels in dimension 1 of 4, all else has its features in the last dimension."
        )
    return made


def _asked(name: str, x: Tensor, where: tuple[str, Place]) -> str:
    edge, place = where
    return (
        f"Expected the primitive {name!r} on edge {edge} to make {place.target} features of "
        f"{place.source} (place.target, place.source) from a tensor of shape {tuple(x.shape)}"
    )


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
