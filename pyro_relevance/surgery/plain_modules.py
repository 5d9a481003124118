"""Plain modules that a cut or a loaded network may need: columns, a constant, a list of steps."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Constant",
    "GraphNetwork",
    "Result",
    "SelectFeatures",
    "Step",
    "function_named",
    "is_method",
    "name_of_function",
    "owned_tensor",
]

# What a step may call: operations that turn tensors into tensors and do nothing else. No name here
# reads a file, runs code or takes a function as an argument.
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
_ATTRIBUTES = frozenset(
    ("T", "device", "dtype", "is_cuda", "layout", "mT", "ndim", "requires_grad", "shape")
)
_LIBRARIES: tuple[tuple[str, Any, frozenset[str]], ...] = (
    ("torch.nn.functional", F, frozenset(_FUNCTIONAL_WORDS.split())),
    ("torch", torch, _OPERATIONS),
    ("operator", operator, _OPERATORS),
    ("math", math, frozenset(("ceil", "exp", "floor", "log", "prod", "sqrt", "trunc"))),
)
_ATEN = "torch.ops.aten"
_ATTRIBUTE_OF = "builtins.getattr"


class SelectFeatures(nn.Module):
    """Columns ``index`` of the last axis; stands before a layer that no longer reads all of them.

    Args:
        index: Columns to pass on, in this order.
    """

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(list(index), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., num_columns)`` to ``(..., len(index))``."""
        return x.index_select(-1, self.index)

    def extra_repr(self) -> str:
        """Number of columns, for printing."""
        return f"num_features={len(self.index)}"


class Constant(nn.Module):
    """The same value for every example: what is left of a network that reads none of its inputs.

    Args:
        value: ``(*output_shape)`` output for one example.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Map ``(num_data, ...)`` to ``(num_data, *output_shape)``."""
        return self.value.expand(x.shape[0], *self.value.shape)

    def extra_repr(self) -> str:
        """Shape of the output, for printing."""
        return f"shape={tuple(self.value.shape)}"


@dataclass(frozen=True, slots=True)
class Result:
    """Stands for the result of an earlier step among the arguments of a step.

    Args:
        step: Position of that step.
    """

    step: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a :class:`GraphNetwork`, in the words of ``torch.fx``.

    Args:
        op: ``placeholder``, ``get_attr``, ``call_module``, ``call_function``, ``call_method`` or
            ``output``.
        target: Name of the input, tensor, module, function (see :func:`function_named`) or method.
        args: Positional arguments; a placeholder's is its default.
        kwargs: Arguments by name.
    """

    op: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class GraphNetwork(nn.Module):
    """A network that is a list of steps over modules and tensors; no code is made from the list.

    Args:
        steps: The steps in the order in which they run; placeholders first, the output last.
        modules: Called modules by qualified name.
        tensors: Other parameters, and tensors that become buffers, by qualified name.
        unsaved: Names of those tensors that are no part of the state dict.

    Raises:
        ValueError: A step calls what it may not, reads a later step, or names nothing that there
            is.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        modules: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor],
        unsaved: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._graph_steps = tuple(steps)
        skipped = frozenset(unsaved)
        for name, module in modules.items():
            owner, _, key = name.rpartition(".")
            _container(self, owner).add_module(key, module)
        for name, tensor in tensors.items():
            owner, _, key = name.rpartition(".")
            holder = _container(self, owner)
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(key, tensor)
            else:
                holder.register_buffer(key, tensor, persistent=name not in skipped)
        self._check()
        self._graph_finished = _last_uses(self._graph_steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they run."""
        return self._graph_steps

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        """Run the steps; inputs by position, as the network took them that was described."""
        results: list[Any] = []
        for step, finished in zip(self._graph_steps, self._graph_finished, strict=True):
            args = _filled(step.args, results)
            kwargs = {key: _filled(value, results) for key, value in step.kwargs.items()}
            if step.op == "placeholder":
                results.append(_input(step, len(results), x, others))
            elif step.op == "get_attr":
                results.append(owned_tensor(self, step.target))
            elif step.op == "call_module":
                results.append(self.get_submodule(step.target)(*args, **kwargs))
            elif step.op == "call_function":
                results.append(function_named(step.target)(*args, **kwargs))
            elif step.op == "call_method":
                results.append(getattr(args[0], step.target)(*args[1:], **kwargs))
            else:
                return args[0]
            for position in finished:
                results[position] = None  # the memory of what no later step reads
        raise AssertionError("the last step is an output")

    def extra_repr(self) -> str:
        """Number of steps, for printing."""
        return f"num_steps={len(self._graph_steps)}"

    def _check(self) -> None:
        if not self._graph_steps or self._graph_steps[-1].op != "output":
            raise ValueError("Expected steps that end in an output, but got none.")
        for position, step in enumerate(self._graph_steps):
            arguments = (step.args, dict(step.kwargs))
            if any(not 0 <= read < position for read in _reads(arguments)):
                raise ValueError(f"Expected a step to read earlier steps, but got {step!r}.")
            if step.op == "call_function":
                function_named(step.target)
                if step.target == _ATTRIBUTE_OF:
                    _check_attribute(step)
            elif step.op == "call_method":
                if not is_method(step.target) or not _reads(step.args[:1]):
                    raise ValueError(f"Expected an operation on a tensor, but got {step!r}.")
            elif step.op == "call_module":
                _module_at(self, step.target)
            elif step.op == "get_attr":
                owned_tensor(self, step.target)
            elif step.op not in ("placeholder", "output"):
                raise ValueError(f"Expected a known kind of step, but got {step!r}.")


def owned_tensor(module: nn.Module, name: str) -> Tensor:
    """Parameter or buffer of a module by its qualified name.

    Args:
        module: The module.
        name: Qualified name.

    Returns:
        The tensor itself.

    Raises:
        ValueError: There is no such parameter or buffer.
    """
    owner, _, key = name.rpartition(".")
    holder = _module_at(module, owner)
    tensor: Tensor | None = holder._parameters.get(key)
    if tensor is None:
        tensor = holder._buffers.get(key)
    if tensor is None:
        raise ValueError(f"Expected a parameter or buffer {name!r}, but there is none.")
    return tensor


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
    if name == _ATTRIBUTE_OF:
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
    names: dict[Callable[..., Any], str] = {getattr: _ATTRIBUTE_OF}
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


def _check_attribute(step: Step) -> None:
    known = len(step.args) == 2 and not step.kwargs and step.args[1] in _ATTRIBUTES
    if not known or not isinstance(step.args[0], Result):
        raise ValueError(
            f"Expected an attribute among {', '.join(sorted(_ATTRIBUTES))}, but got {step!r}."
        )


def _container(root: nn.Module, name: str) -> nn.Module:
    """Module of that name; modules that only hold others are made on the way."""
    module = root
    for key in name.split(".") if name else ():
        child = module._modules.get(key)
        if child is None:
            child = nn.Module()
            module.add_module(key, child)
        module = child
    return module


def _module_at(root: nn.Module, name: str) -> nn.Module:
    # Through the modules alone: getattr() would reach every attribute.
    module = root
    for key in name.split(".") if name else ():
        child = module._modules.get(key)
        if child is None:
            raise ValueError(f"Expected a module {name!r}, but there is none.")
        module = child
    return module


def _input(step: Step, position: int, x: Tensor, others: tuple[Tensor, ...]) -> Any:
    if step.target.startswith("*"):
        return (x, *others) if position == 0 else others[position - 1 :]
    if position == 0:
        return x
    # Under torch.fx the other inputs are a single symbol, which has no length.
    if not isinstance(others, tuple) or position <= len(others):
        return others[position - 1]
    if not step.args:
        raise TypeError(
            f"Expected an input {step.target!r}, but got {len(others) + 1} inputs. Pass all of the "
            "described network's inputs by position."
        )
    return step.args[0]


def _reads(value: Any) -> list[int]:
    """Positions of the steps that an argument reads."""
    if isinstance(value, Result):
        return [value.step]
    if isinstance(value, (tuple, list)):
        return [read for item in value for read in _reads(item)]
    if isinstance(value, dict):
        return [read for item in value.values() for read in _reads(item)]
    if isinstance(value, slice):
        return _reads((value.start, value.stop, value.step))
    return []


def _filled(value: Any, results: list[Any]) -> Any:
    """The argument with results in the place of their positions."""
    if isinstance(value, Result):
        return results[value.step]
    if isinstance(value, (tuple, list)):
        return type(value)(_filled(item, results) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, results) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(part, results) for part in (value.start, value.stop, value.step)))
    return value


def _last_uses(steps: Sequence[Step]) -> tuple[tuple[int, ...], ...]:
    """For each step, the results that no step after it reads."""
    last = {
        read: position
        for position, step in enumerate(steps)
        for read in _reads((step.args, dict(step.kwargs)))
    }
    finished: list[list[int]] = [[] for _ in steps]
    for read, position in last.items():
        finished[position].append(read)
    return tuple(map(tuple, finished))
