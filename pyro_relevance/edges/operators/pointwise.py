"""Operators that work element by element or along an axis, and operators without a rule."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from pyro_relevance.edges.coupling.label_tensors import FILLER, KEPT, compact, filled, variable_axes
from pyro_relevance.edges.coupling.labelling import Labelling, tensors_of
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import dims_of
from pyro_relevance.edges.operators.registry import note, operator
from pyro_relevance.edges.reasons import Reason, Why

__all__ = ["along", "pointwise", "reduce", "same", "unknown"]


@operator("alias", "lift_fresh_copy", "dropout_", saved=True)
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
            # One value for many units: it can only be removed if all of them are.
            run.block(labels, Why.ONE_FOR_MANY.reason())
        else:
            result = run.meet(result, whole)
    for source in node.all_input_nodes:
        # A constant that is written out along gated channels could not be pruned with them.
        value = value_of(source) if source in run.created else run.constants.get(source)
        if isinstance(value, Tensor) and value.ndim:
            first = len(shape) - value.ndim
            dims = [first + d for d, size in enumerate(value.shape) if size > 1]
            run.block_varying(result, dims, Why.WITH_CONSTANT.reason())
    return result


def created_like(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Make a constant value of the size of another one: it shrinks with that one."""
    return run.operand(node.args[0])


def created(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Make a constant value whose size is written into the code."""
    run.created.add(node)
    return filled(tuple(value_of(node).shape), FILLER)


@operator("_softmax", "cumsum", "logcumsumexp", "cumprod", saved=True)
def along(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Keep the labels; those along the axis are used together."""
    labels = run.value(node.args[0])
    run.together.append((compact(labels), dims_of(node, labels), _read_together(name)))
    return labels  # type: ignore[no-any-return]


@operator(
    *("mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "var", "std", "logsumexp"),
    "prod",
    saved=True,
)
def reduce(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Drop axes; labels that differ along them are used together."""
    labels: Tensor = run.value(node.args[0])
    dims = dims_of(node, labels)
    run.together.append((compact(labels), dims, _read_together(name)))
    kept = labels
    for dim in dims:
        kept = kept.amax(dim, keepdim=True) if kept.stride(dim) else kept.narrow(dim, 0, 1)
    shape = tuple(value_of(node).shape)
    if len(shape) != labels.ndim:
        kept = kept.squeeze(tuple(dims))
    return kept.expand(shape)


@operator("expand_as", saved=True)
def expand_as(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Repeat the labels along new axes."""
    labels = run.operand(node.args[0])
    return labels.expand(tuple(value_of(node).shape))


def unknown(run: Labelling, node: fx.Node, name: str, reason: Reason | None = None) -> Any:
    """Block all labels that pass through an operator without a rule."""
    reason = reason or Why.THROUGH_OPERATION.reason(name=name)
    for source in node.all_input_nodes:
        labels = run.value(source) if source not in run.constants else None
        for tensor in tensors_of(labels):
            run.block(tensor, reason)
    return tree_map(
        lambda v: filled(tuple(v.shape), KEPT) if isinstance(v, Tensor) else v,
        value_of(node),
    )


def _read_together(name: str) -> Reason:
    return Why.READ_TOGETHER.reason(what=f"the operation {name!r}")


operator("empty_like", "full_like", "ones_like", "zeros_like", saved=True)(created_like)
operator("new_empty", "new_full", "new_ones", "new_zeros", saved=True)(created)

# Operators that leave each element where it is.
_same = partial(operator, last_axis="apart", saved=True)
_same("dropout", modules={nn.Dropout: "p"})(same)
_same("alpha_dropout", modules={nn.AlphaDropout: "p"})(same)
_same("clone", "contiguous", "detach")(same)
operator(
    "feature_dropout",
    modules={nn.Dropout1d: "p", nn.Dropout2d: "p", nn.Dropout3d: "p"},
    saved=True,
)(same)
note("feature_alpha_dropout", modules={nn.FeatureAlphaDropout: "p"}, saved=True)
note("identity", modules={nn.Identity: ""}, last_axis="apart")

# Functions of each element.
_apart = partial(operator, last_axis="apart", saved=True)
_apart("relu", "relu_", modules={nn.ReLU: ""})(pointwise)
_apart("relu6", modules={nn.ReLU6: ""})(pointwise)
_apart("leaky_relu", "leaky_relu_", modules={nn.LeakyReLU: "negative_slope"})(pointwise)
_apart("elu", "elu_", modules={nn.ELU: "alpha"})(pointwise)
_apart("selu", "selu_", modules={nn.SELU: ""})(pointwise)
_apart("celu", modules={nn.CELU: "alpha"})(pointwise)
_apart("gelu", modules={nn.GELU: "approximate"})(pointwise)
_apart("silu", modules={nn.SiLU: ""})(pointwise)
_apart("mish", modules={nn.Mish: ""})(pointwise)
_apart("tanh", "tanh_", modules={nn.Tanh: ""})(pointwise)
_apart("sigmoid", "sigmoid_", modules={nn.Sigmoid: ""})(pointwise)
_apart("softplus", modules={nn.Softplus: "beta threshold"})(pointwise)
_apart("hardtanh", modules={nn.Hardtanh: "min_val max_val"})(pointwise)
_apart("hardsigmoid", modules={nn.Hardsigmoid: ""})(pointwise)
_apart("hardswish", modules={nn.Hardswish: ""})(pointwise)
_apart("clamp", "pow", "add", "sub", "mul", "div")(pointwise)
_apart("float", "half", "to", "type_as")(pointwise)
operator("_to_copy", "fill", "masked_fill", "where", "zero", saved=True)(pointwise)

# Names of such functions that torch.export does not show, or shows tagged as pointwise.
_tagged = partial(note, last_axis="apart", saved=True)
_tagged("rrelu", modules={nn.RReLU: "lower upper"})
_tagged("softshrink", modules={nn.Softshrink: "lambd"})
_tagged("hardshrink", modules={nn.Hardshrink: "lambd"})
_tagged("threshold", modules={nn.Threshold: "threshold value"})
_tagged("neg", "abs", "exp", "expm1", "log1p", "sqrt", "square", "sin", "cos", "erf", "clip")
_tagged("rsqrt", "reciprocal", "double", "bfloat16")
note("truediv", last_axis="apart")
note("softsign", modules={nn.Softsign: ""}, last_axis="apart")
note("logsigmoid", modules={nn.LogSigmoid: ""}, last_axis="apart")
note("tanhshrink", modules={nn.Tanhshrink: ""}, last_axis="apart")

# Functions of all elements along an axis.
_together = partial(operator, last_axis="together", saved=True)
_together("softmax", modules={nn.Softmax: "dim"})(along)
_together("log_softmax", modules={nn.LogSoftmax: "dim"})(along)
note("softmin", modules={nn.Softmin: "dim"}, last_axis="together")
note("normalize", last_axis="together")
note("softmax_over_channels", modules={nn.Softmax2d: ""})
note("size", "numel", last_axis="asked", saved=True)
note("dim", last_axis="asked", saved=True)
note("getattr", last_axis="asked")
