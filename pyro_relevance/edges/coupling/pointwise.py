"""Operators that work element by element, along an axis, or in a way that is not known."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.utils._pytree import tree_map

from pyro_relevance.edges.coupling.label_tensors import FILLER, KEPT, compact, filled, variable_axes
from pyro_relevance.edges.coupling.labelling import Labelling, tensors_of
from pyro_relevance.edges.coupling.operators import dims_of
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.reasons import Reason, Why

__all__ = [
    "SPATIAL",
    "AS_THEY_ARE",
    "ALONG",
    "REDUCTIONS",
    "POINTWISE",
    "CREATED",
    "same",
    "pointwise",
    "spatial",
    "along",
    "reduce",
    "expand_as",
    "unknown",
]

SPATIAL = {
    "max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3, "avg_pool1d": 1, "avg_pool2d": 2,
    "avg_pool3d": 3, "adaptive_avg_pool1d": 1, "adaptive_avg_pool2d": 2, "adaptive_avg_pool3d": 3,
    "adaptive_max_pool1d": 1, "adaptive_max_pool2d": 2, "max_pool2d_with_indices": 2,
    "upsample_nearest2d": 2, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2,
    "upsample_nearest1d": 1, "_adaptive_avg_pool2d": 2, "lp_pool2d": 2,
}  # fmt: skip
AS_THEY_ARE = frozenset([
    "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "dropout_",
    "feature_dropout", "lift_fresh_copy",
])  # fmt: skip
"""Operators that leave each element where it is."""
ALONG = frozenset(["softmax", "log_softmax", "_softmax", "cumsum", "logcumsumexp", "cumprod"])
REDUCTIONS = frozenset(
    ["mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "var", "std", "logsumexp", "prod"]
)
POINTWISE = frozenset([
    "_to_copy", "add", "celu", "clamp", "div", "elu", "fill", "float", "gelu", "half",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "masked_fill", "mish", "mul", "pow",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "sub", "tanh", "to",
    "type_as", "where", "zero",
])  # fmt: skip
CREATED = frozenset([
    "empty_like", "full_like", "new_ones", "new_zeros", "ones_like", "zeros_like",
])  # fmt: skip


def same(run: Labelling, node: fx.Node, name: str) -> Any:
    """Leave the labels as they are."""
    return run.value(node.args[0])


def pointwise(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Join the labels that meet element by element."""
    shape = tuple(value_of(node).shape)
    result = filled(shape, FILLER)
    operands = [run.value(n) for n in node.all_input_nodes if n not in run.constants]
    for labels in sorted(operands, key=lambda operand: -operand.numel()):
        whole = labels.expand(shape)
        wide, narrow = variable_axes(result), variable_axes(whole)
        if wide - narrow and not wide & narrow:
            # One value for many units: these can go without it, it cannot go without them.
            run.block(labels, Why.ONE_FOR_MANY.reason())
        else:
            result = run.meet(result, whole)
    for source in node.all_input_nodes:
        # A constant that is written out along judged channels could not be cut with them.
        value = run.constants.get(source)
        if isinstance(value, Tensor) and value.ndim:
            first = len(shape) - value.ndim
            dims = [first + d for d, size in enumerate(value.shape) if size > 1]
            run.block_varying(result, dims, Why.WITH_CONSTANT.reason())
    return result


def spatial(run: Labelling, node: fx.Node, name: str) -> Any:
    """Pool or resize: channels stay, positions within an image do not matter."""
    labels = run.value(node.args[0])
    value = value_of(node)
    shapes = [tuple(v.shape) for v in (value if isinstance(value, tuple | list) else [value])]
    count = SPATIAL[name]
    kept = run.collapsed(labels, list(range(labels.ndim - count, labels.ndim)))
    results = [kept.expand(shape) for shape in shapes]
    return results if isinstance(value, tuple | list) else results[0]


def along(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Keep the labels; those along the axis are used together."""
    labels = run.value(node.args[0])
    run.together.append((compact(labels), dims_of(node, labels), _together(name)))
    return labels  # type: ignore[no-any-return]


def reduce(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Drop axes; labels that differ along them are used together."""
    labels: Tensor = run.value(node.args[0])
    dims = dims_of(node, labels)
    run.together.append((compact(labels), dims, _together(name)))
    kept = labels
    for dim in dims:
        kept = kept.amax(dim, keepdim=True) if kept.stride(dim) else kept.narrow(dim, 0, 1)
    shape = tuple(value_of(node).shape)
    if len(shape) != labels.ndim:
        kept = kept.squeeze(tuple(dims))
    return kept.expand(shape)


def expand_as(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Repeat the labels along new axes."""
    labels = run.operand(node.args[0])
    return labels.expand(tuple(value_of(node).shape))


def unknown(run: Labelling, node: fx.Node, name: str) -> Any:
    """Block all labels that pass through an operator without a rule."""
    reason = Why.THROUGH_OPERATION.reason(name=name)
    for source in node.all_input_nodes:
        labels = run.value(source) if source not in run.constants else None
        for tensor in tensors_of(labels):
            run.block(tensor, reason)
    return tree_map(
        lambda v: filled(tuple(v.shape), KEPT) if isinstance(v, Tensor) else v,
        value_of(node),
    )


def _together(name: str) -> Reason:
    return Why.READ_TOGETHER.reason(what=f"the operation {name!r}")
