"""Operators on images: they keep the channels and change positions within an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from pyro_relevance.edges.coupling.labelling import Labelling
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.registry import Rule, note, operator

__all__ = ["spatial"]


def spatial(num_axes: int) -> Rule:
    """Return the rule of pooling or resizing along some last axes.

    Args:
        num_axes: Number of these axes.
    """

    def rule(run: Labelling, node: fx.Node, name: str) -> Any:
        labels = run.value(node.args[0])
        value = value_of(node)
        several = isinstance(value, tuple | list)
        shapes = [tuple(v.shape) for v in (value if several else [value])]
        kept = run.collapsed(labels, list(range(labels.ndim - num_axes, labels.ndim)))
        results = [kept.expand(shape) for shape in shapes]
        return results if several else results[0]

    return rule


def _register(
    num_axes: int, *names: str, modules: Mapping[type[nn.Module], str] | None = None
) -> None:
    operator(*names, modules=modules or {}, saved=True)(spatial(num_axes))


_MAX = "kernel_size stride padding dilation ceil_mode"
_AVERAGE = "kernel_size stride padding ceil_mode count_include_pad"
_RESIZED = "size scale_factor mode align_corners recompute_scale_factor"

_register(1, "max_pool1d", modules={nn.MaxPool1d: _MAX})
_register(2, "max_pool2d", "max_pool2d_with_indices", modules={nn.MaxPool2d: _MAX})
_register(3, "max_pool3d", modules={nn.MaxPool3d: _MAX})
_register(1, "avg_pool1d", modules={nn.AvgPool1d: _AVERAGE})
_register(2, "avg_pool2d", modules={nn.AvgPool2d: f"{_AVERAGE} divisor_override"})
_register(3, "avg_pool3d", modules={nn.AvgPool3d: f"{_AVERAGE} divisor_override"})
_register(1, "adaptive_avg_pool1d", modules={nn.AdaptiveAvgPool1d: "output_size"})
_register(
    2,
    *("adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
    modules={nn.AdaptiveAvgPool2d: "output_size"},
)
_register(3, "adaptive_avg_pool3d", modules={nn.AdaptiveAvgPool3d: "output_size"})
_register(1, "adaptive_max_pool1d", modules={nn.AdaptiveMaxPool1d: "output_size"})
_register(2, "adaptive_max_pool2d", modules={nn.AdaptiveMaxPool2d: "output_size"})
note("adaptive_max_pool3d", modules={nn.AdaptiveMaxPool3d: "output_size"}, saved=True)
_register(1, "upsample_nearest1d")
_register(2, "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
operator("lp_pool2d")(spatial(2))
note("interpolate", modules={nn.Upsample: _RESIZED})
