"""The operations that a network in a file may call, by their names.

They turn tensors into tensors and do nothing else: no name here reads a file, runs code or takes a
function as an argument. Reading a file therefore runs no code but that of torch.
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

__all__ = ["ATTRIBUTES", "ATTRIBUTE_OF", "function_named", "is_method", "name_of_function"]

_OPERATION_WORDS = """
    abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm
    addmv adjoint alias all alpha_dropout amax amin aminmax any arange argmax argmin argsort
    as_strided asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bfloat16 bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm bool broadcast_tensors
    broadcast_to bucketize cat cdist ceil celu channel_shuffle chunk clamp clamp_max clamp_min
    clip clone column_stack concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution copysign cos cosh
    cosine_similarity count_nonzero cross cummax cummin cumprod cumsum deg2rad detach diag
    diag_embed diagonal diff digamma dim div divide dot double dropout dsplit dstack einsum elu
    embedding empty empty_like eq erf erfc erfinv exp exp2 expand expand_as expm1 eye
    feature_alpha_dropout feature_dropout fill flatten flip fliplr flipud float float_power
    floor floor_divide fmax fmin fmod frac frobenius_norm full full_like gather ge gelu glu
    greater greater_equal grid_sampler group_norm gt half hardshrink hardsigmoid hardswish
    hardtanh heaviside hsplit hstack hypot im2col index index_add index_copy index_fill
    index_select inner instance_norm int inverse is_floating_point isclose isfinite isinf isnan
    kron kthvalue layer_norm le leaky_relu lerp less less_equal lgamma lift_fresh
    lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2
    log_sigmoid log_softmax logaddexp logaddexp2 logcumsumexp logical_and logical_not logical_or
    logical_xor logit logsumexp long lt mH mT masked_fill masked_scatter masked_select matmul
    matrix_exp max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices maximum mean median meshgrid min minimum mish mm mode moveaxis
    movedim mul multiply mv nan_to_num nanmean nanmedian nanquantile nansum narrow
    native_batch_norm native_group_norm native_layer_norm ndimension ne neg negative new_empty
    new_full new_ones new_zeros norm not_equal numel numpy_T ones ones_like outer pad permute
    pixel_shuffle pixel_unshuffle polygamma positive pow prelu prod quantile rad2deg ravel
    reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder renorm
    repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape
    reshape_as rms_norm roll rot90 round rrelu rsqrt rsub scalar_tensor
    scaled_dot_product_attention scatter scatter_add scatter_reduce select select_scatter selu
    sigmoid sign signbit silu sin sinc sinh size slice slice_scatter softmax softplus softshrink
    sort split split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes
    swapdims sym_size t take take_along_dim tan tanh tensor_split threshold tile to topk trace
    transpose tril triu true_divide trunc type_as unbind unflatten unfold unsafe_chunk
    unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
    vdot view view_as vsplit vstack where xlogy zero zeros zeros_like _adaptive_avg_pool2d
    _adaptive_avg_pool3d _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view
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
_OPERATIONS = frozenset(_OPERATION_WORDS.split())
_OPERATORS = frozenset(_OPERATOR_WORDS.split())
ATTRIBUTES = frozenset(
    ("T", "device", "dtype", "is_cuda", "layout", "mT", "ndim", "requires_grad", "shape")
)
_LIBRARIES: tuple[tuple[str, Any, frozenset[str]], ...] = (
    ("torch.nn.functional", F, frozenset(_FUNCTIONAL_WORDS.split())),
    ("torch", torch, _OPERATIONS),
    ("operator", operator, _OPERATORS),
    ("math", math, frozenset(("ceil", "exp", "floor", "log", "prod", "sqrt", "trunc"))),
)
_ATEN = "torch.ops.aten"
ATTRIBUTE_OF = "builtins.getattr"


def is_method(name: str) -> bool:
    """Whether a step may call this method of a tensor; in-place ones end in ``_``."""
    return _without_underscore(name) in _OPERATIONS and hasattr(Tensor, name)


@functools.cache
def function_named(name: str) -> Callable[..., Any]:
    """Look up a function that a step may call.

    Args:
        name: ``torch.<name>``, ``torch.nn.functional.<name>``, ``operator.<name>``,
            ``math.<name>``, ``torch.ops.aten.<name>.<overload>`` or ``builtins.getattr``.

    Returns:
        The function.

    Raises:
        ValueError: It is not among the operations that a step may call.
    """
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
    return name[:-1] if name.endswith("_") and name not in _OPERATORS else name
