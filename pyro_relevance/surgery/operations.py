"""The operations that a network in a file may call, by their names.

They turn tensors into tensors and do nothing else: none of them reads a file, runs code or takes a
function as an argument. Reading a file therefore runs no code but that of torch, and of operators
that the user registered with ``saved=True``. A step may call every operator whose entry in the
registry has ``saved``. This module lists further ones, through which no units are followed, and
torch's names of the operations in its libraries of functions.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyro_relevance.edges.operators.registry import find, registered

__all__ = ["ATTRIBUTES", "ATTRIBUTE_OF", "function_named", "is_method", "name_of_function"]

_FURTHER_WORDS = """
    acos acosh addbmm addcdiv addcmul addmm addmv all aminmax any arange argmax argmin argsort
    as_strided asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_not bitwise_or
    bitwise_xor bool broadcast_tensors broadcast_to bucketize cdist ceil clamp_max clamp_min
    column_stack concat concatenate convolution copysign cosh cosine_similarity count_nonzero
    cross cummax cummin deg2rad diag diag_embed diagonal diff digamma divide dot dstack empty eq
    erfc erfinv exp2 eye fliplr flipud float_power floor floor_divide fmax fmin fmod frac
    frobenius_norm full gather ge greater greater_equal grid_sampler gt heaviside hstack hypot
    im2col index_add index_copy index_fill inner int inverse is_floating_point isclose isfinite
    isinf isnan kron kthvalue le lerp less less_equal lgamma lift_fresh linalg_norm linspace log
    log10 log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
    logit long lt mH masked_scatter masked_select matrix_exp max max_pool3d_with_indices maximum
    median meshgrid min minimum mm mode multiply mv nan_to_num nanmean nanmedian nanquantile
    nansum native_batch_norm native_group_norm native_layer_norm ndimension ne negative
    new_empty new_full not_equal ones outer polygamma positive quantile rad2deg ravel
    reflection_pad1d reflection_pad2d reflection_pad3d remainder renorm replication_pad1d
    replication_pad2d replication_pad3d rot90 round rsub scalar_tensor scatter scatter_add
    scatter_reduce select_scatter sign signbit sinc sinh slice_scatter sort std_mean subtract
    swapdims sym_size take take_along_dim tan topk trace tril triu true_divide trunc
    upsample_linear1d upsample_nearest3d upsample_trilinear3d var_mean vdot vstack xlogy zeros
    __and__ __or__ __xor__ rand_like randn_like randint_like rand randn randint bernoulli normal
    multinomial
    _adaptive_avg_pool3d _weight_norm _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training
"""
_FUNCTIONAL_WORDS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d affine_grid alpha_dropout avg_pool1d avg_pool2d
    avg_pool3d batch_norm bilinear celu channel_shuffle conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d cosine_similarity dropout dropout1d dropout2d dropout3d
    elu embedding feature_alpha_dropout fold gelu glu grid_sample group_norm gumbel_softmax
    hardshrink hardsigmoid hardswish hardtanh instance_norm interpolate layer_norm leaky_relu
    linear local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d max_pool1d max_pool2d
    max_pool3d max_unpool1d max_unpool2d max_unpool3d mish normalize one_hot pad
    pairwise_distance pixel_shuffle pixel_unshuffle prelu relu relu6 rms_norm rrelu
    scaled_dot_product_attention selu sigmoid silu softmax softmin softplus softshrink softsign
    tanh tanhshrink threshold unfold upsample upsample_bilinear upsample_nearest
"""
_OPERATOR_WORDS = """
    abs add and_ eq floordiv ge getitem gt iadd iand ifloordiv imatmul imod imul invert ior ipow
    isub itruediv ixor le lshift lt matmul mod mul ne neg not_ or_ pos pow rshift sub truediv
    xor
"""
_OPERATIONS = frozenset(_FURTHER_WORDS.split()) | {
    name for entry in registered() if entry.saved for name in entry.names if "::" not in name
}
_OPERATORS = frozenset(_OPERATOR_WORDS.split())
ATTRIBUTES = frozenset(
    ("T", "device", "dtype", "is_cuda", "layout", "mT", "ndim", "requires_grad", "shape")
)
_LIBRARIES: tuple[tuple[str, Any, frozenset[str]], ...] = (
    ("torch.nn.functional", F, frozenset(_FUNCTIONAL_WORDS.split())),
    ("torch", torch, _OPERATIONS),
    ("operator", operator, _OPERATORS),
    ("torch", torch, frozenset(("sym_float", "sym_int", "sym_max", "sym_min", "sym_not"))),
    ("torch", torch, frozenset(("_sym_sqrt",))),
    ("math", math, frozenset(("ceil", "exp", "floor", "log", "prod", "sqrt", "trunc"))),
)
_OPS = "torch.ops."
_ATEN = "torch.ops.aten"
ATTRIBUTE_OF = "builtins.getattr"


def is_method(name: str) -> bool:
    """Whether a step may call this method of a tensor; in-place ones end in ``_``."""
    return _without_underscore(name) in _OPERATIONS and hasattr(Tensor, name)


def function_named(name: str) -> Callable[..., Any]:
    """Look up a function that a step may call.

    Args:
        name: ``torch.<name>``, ``torch.nn.functional.<name>``, ``operator.<name>``,
            ``math.<name>``, ``torch.ops.<namespace>.<name>.<overload>`` or ``builtins.getattr``.

    Returns:
        The function.

    Raises:
        ValueError: It is not among the operations that a step may call.
    """
    return _function_of_user(name) or _function_of_torch(name)


def _function_of_user(name: str) -> Callable[..., Any] | None:
    """Look up ``torch.ops.<namespace>.<name>.<overload>`` among the registered operators."""
    parts = name.removeprefix(_OPS).split(".")
    if not name.startswith(_OPS) or name.startswith(f"{_ATEN}.") or len(parts) != 3:
        return None
    namespace, key, overload = parts
    if not find(f"{namespace}::{key}").saved:
        raise ValueError(
            f"Expected an operation that files may call, but got {name!r}. If you trust it, "
            f"register it first: pr.operators.operator('{namespace}::{key}', saved=True)."
        )
    packet = getattr(getattr(torch.ops, namespace), key)
    if overload not in packet.overloads():
        raise ValueError(
            f"Expected {namespace}::{key} with one of {packet.overloads()}, but got {name!r}."
        )
    return getattr(packet, overload)  # type: ignore[no-any-return]


@functools.cache
def _function_of_torch(name: str) -> Callable[..., Any]:
    if name == ATTRIBUTE_OF:
        return getattr
    if name.startswith(_ATEN + "."):
        operation, _, overload = name.removeprefix(_ATEN + ".").partition(".")
        packet = getattr(torch.ops.aten, operation, None) if _is_operation(operation) else None
        if packet is not None and not overload:
            return packet  # type: ignore[no-any-return]
        if packet is not None and overload in packet.overloads():
            return getattr(packet, overload)  # type: ignore[no-any-return]
    library, _, key = name.rpartition(".")
    for known, module, names in _LIBRARIES:
        if known == library and _without_underscore(key) in names:
            function = getattr(module, key, None)
            if callable(function):  # torch.float, say, is a data type
                return function  # type: ignore[no-any-return]
    raise ValueError(
        f"Expected an operation on tensors of torch, torch.nn.functional or operator, but got "
        f"{name!r}."
    )


def name_of_function(function: Callable[..., Any]) -> str | None:
    """Name under which :func:`function_named` finds a function.

    Args:
        function: The function.

    Returns:
        The name, or ``None`` where a step may not call it.
    """
    if isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        name = f"torch.ops.{function}"
        try:
            return name if function_named(name) is function else None
        except ValueError:
            return None
    return _names().get(function)


@functools.cache
def _names() -> dict[Callable[..., Any], str]:
    names: dict[Callable[..., Any], str] = {getattr: ATTRIBUTE_OF}
    for library, module, keys in _LIBRARIES:
        for key in sorted(keys):
            for written in (key, key + "_"):
                function = getattr(module, written, None)
                if callable(function):
                    names.setdefault(function, f"{library}.{written}")
    return names


def _is_operation(name: str) -> bool:
    return _without_underscore(name) in _OPERATIONS


def _without_underscore(name: str) -> str:
    in_place = name.endswith("_") and not name.endswith("__") and name not in _OPERATORS
    return name[:-1] if in_place else name
