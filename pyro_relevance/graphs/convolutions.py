"""Primitives of cells for images: those of NAS-Bench-201, of DARTS, and blocks of small networks.

References:
    Dong, Yang, NAS-Bench-201, ICLR 2020, section 2.1. Liu, Simonyan, Yang, DARTS, ICLR 2019,
    section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_relevance.graphs.primitives import Identity, Place, primitive

__all__ = ["DARTS_OPERATIONS", "NASBENCH201_OPERATIONS", "FactorizedReduce", "ReluConvNorm"]

NASBENCH201_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The five operations of a NAS-Bench-201 cell, in the order of the benchmark."""

DARTS_OPERATIONS = (
    "none",
    "max_pool_3x3",
    "darts_avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The eight operations of a DARTS cell; its average pooling is normalised, unlike that of
NAS-Bench-201."""


def _norm(place: Place) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(place.target, affine=place.affine, track_running_stats=place.statistics)


class ReluConvNorm(nn.Sequential):
    """ReLU, convolution, batch normalisation.

    Args:
        place: Its position.
        size: Width of the square kernel.
    """

    def __init__(self, place: Place, size: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                place.source,
                place.target,
                size,
                stride=place.stride,
                padding=size // 2,
                bias=False,
            ),
            _norm(place),
        )


class FactorizedReduce(nn.Module):
    """Half the resolution by two shifted 1x1 convolutions (Liu et al. 2019).

    Args:
        place: Its position, of ``stride`` 2.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        half = place.target // 2
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(place.source, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(place.source, place.target - half, 1, stride=2, bias=False)
        self.norm = _norm(place)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(num_examples, target, height / 2, width / 2)``."""
        x = self.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        joined: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return joined


def _separable(place: Place, size: int, *, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise and pointwise convolution, normalisation."""
    return [
        nn.ReLU(),
        nn.Conv2d(
            place.source,
            place.source,
            size,
            stride=place.stride,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=place.source,
            bias=False,
        ),
        nn.Conv2d(place.source, place.target, 1, bias=False),
        _norm(place),
    ]


def _pool(pool: nn.Module, place: Place, *, normalise: bool) -> nn.Module:
    before = [] if place.source == place.target else [ReluConvNorm(_unstrided(place), 1)]
    after = [_norm(place)] if normalise else []
    return nn.Sequential(*before, pool, *after) if before or after else pool


def _unstrided(place: Place) -> Place:
    return Place(place.source, place.target, 1, place.affine, place.statistics)


@primitive("skip_connect")
def skip_connect(place: Place) -> nn.Module:
    """Return the identity, or a cheap change of size where sizes differ."""
    if place.stride == 2:
        return FactorizedReduce(place)
    return Identity() if place.source == place.target else ReluConvNorm(place, 1)


@primitive("nor_conv_1x1")
def nor_conv_1x1(place: Place) -> nn.Module:
    """Return ReLU, 1x1 convolution, batch normalisation."""
    return ReluConvNorm(place, 1)


@primitive("nor_conv_3x3")
def nor_conv_3x3(place: Place) -> nn.Module:
    """Return ReLU, 3x3 convolution, batch normalisation."""
    return ReluConvNorm(place, 3)


@primitive("avg_pool_3x3")
def avg_pool_3x3(place: Place) -> nn.Module:
    """Return the mean over 3x3 pixels, padding not counted."""
    pool = nn.AvgPool2d(3, stride=place.stride, padding=1, count_include_pad=False)
    return _pool(pool, place, normalise=False)


@primitive("darts_avg_pool_3x3")
def darts_avg_pool_3x3(place: Place) -> nn.Module:
    """Return the mean over 3x3 pixels, batch normalisation."""
    pool = nn.AvgPool2d(3, stride=place.stride, padding=1, count_include_pad=False)
    return _pool(pool, place, normalise=True)


@primitive("max_pool_3x3")
def max_pool_3x3(place: Place) -> nn.Module:
    """Return the maximum over 3x3 pixels, batch normalisation."""
    pool = nn.MaxPool2d(3, stride=place.stride, padding=1)
    return _pool(pool, place, normalise=True)


def _twice_separable(place: Place, size: int) -> nn.Module:
    first = Place(place.source, place.source, place.stride, place.affine, place.statistics)
    return nn.Sequential(*_separable(first, size), *_separable(_unstrided(place), size))


@primitive("sep_conv_3x3")
def sep_conv_3x3(place: Place) -> nn.Module:
    """Return two depthwise separable 3x3 convolutions."""
    return _twice_separable(place, 3)


@primitive("sep_conv_5x5")
def sep_conv_5x5(place: Place) -> nn.Module:
    """Return two depthwise separable 5x5 convolutions."""
    return _twice_separable(place, 5)


@primitive("dil_conv_3x3")
def dil_conv_3x3(place: Place) -> nn.Module:
    """Return a depthwise separable 3x3 convolution of dilation 2."""
    return nn.Sequential(*_separable(place, 3, dilation=2))


@primitive("dil_conv_5x5")
def dil_conv_5x5(place: Place) -> nn.Module:
    """Return a depthwise separable 5x5 convolution of dilation 2."""
    return nn.Sequential(*_separable(place, 5, dilation=2))


def _conv_relu(place: Place, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(place.source, place.target, size, stride=place.stride, padding=size // 2),
        nn.ReLU(),
    )


@primitive("conv_relu_3x3")
def conv_relu_3x3(place: Place) -> nn.Module:
    """Return a 3x3 convolution with bias, ReLU."""
    return _conv_relu(place, 3)


@primitive("conv_relu_5x5")
def conv_relu_5x5(place: Place) -> nn.Module:
    """Return a 5x5 convolution with bias, ReLU."""
    return _conv_relu(place, 5)


@primitive("max_pool_2x2")
def max_pool_2x2(place: Place) -> nn.Module:
    """Return the maximum over 2x2 pixels, at half the resolution."""
    return _halving(nn.MaxPool2d(2), place, "max_pool_2x2")


@primitive("avg_pool_2x2")
def avg_pool_2x2(place: Place) -> nn.Module:
    """Return the mean over 2x2 pixels, at half the resolution."""
    return _halving(nn.AvgPool2d(2), place, "avg_pool_2x2")


def _halving(pool: nn.Module, place: Place, name: str) -> nn.Module:
    if place.stride != 2 or place.source != place.target:
        raise ValueError(
            f"Expected '{name}' at stride 2 between equal numbers of channels, but got stride "
            f"{place.stride}, {place.source} and {place.target} channels."
        )
    return pool
