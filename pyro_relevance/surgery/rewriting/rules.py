"""How the call of an operation changes where some of its inputs are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from pyro_relevance.edges.coupling.labelling import Product
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import operator_name, setting
from pyro_relevance.edges.operators.registry import find, rewrites
from pyro_relevance.surgery.rewriting.writer import DEAD, Writer
from pyro_relevance.surgery.steps import Result

_BATCH_NORMS: dict[int, Any] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
"""From the number of axes to the layer."""
_SELECT = "torch.ops.aten.index_select.default"
_DROPOUTS: dict[str, Callable[[int], type[nn.Module]]] = {
    "alpha_dropout": lambda ndim: nn.AlphaDropout,
    "dropout": lambda ndim: nn.Dropout,
    "dropout_": lambda ndim: nn.Dropout,
    "feature_dropout": lambda ndim: {4: nn.Dropout2d, 5: nn.Dropout3d}.get(ndim, nn.Dropout1d),
}
"""From the operation and the number of axes to the layer that does the same in training."""


@rewrites(
    *("linear", "matmul", "mm", "addmm", "einsum"),
    *("conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
def _layer(writer: Writer, node: fx.Node) -> Any:
    """A layer reads the kept columns; without any it is its bias."""
    product = writer.applied.get(node) or _product_of(writer, node)
    call: Any = (node.args, node.kwargs, node.target)
    if product is None:
        return call
    labels, weight = writer.labels[product.x], product.weight
    groups = int(setting(node, "groups") or 1)
    there = writer.flags(labels, product.axis)
    if writer.is_dead(labels):
        there = torch.zeros_like(there)
    columns = writer.kept.get((weight, product.reads), there) if groups == 1 else there
    if not bool((columns & there).any()):
        return _bias(writer, node, product), {}, None
    if groups > 1:
        old = writer.exported.tensors[weight].shape[0]
        call = _with(node, "groups", groups * len(writer.tensors[weight]) // old)
    if bool(columns[there].all()):
        return call
    # Inputs that this layer does not read, though another one does.
    index = columns[there].nonzero()[:, 0].to(torch.int32).to(writer.tensors[weight].device)
    stored = writer.tensor(f"{weight.rpartition('.')[0]}.index".lstrip("."), index)
    chosen = writer.emit("call_function", _SELECT, (writer.filled(product.x), product.axis, stored))
    args, kwargs, target = call
    return tree_map(lambda part: chosen if part is product.x else part, args), kwargs, target


def _product_of(writer: Writer, node: fx.Node) -> Product | None:
    """What a layer with a weight of its own multiplies."""
    axes = find(operator_name(node)).layer
    weight = writer.exported.names.get(str(node.args[1]))
    if axes is None or weight is None:
        return None
    x: Any = node.args[0]
    axis = writer.labels[x].ndim - 1 - axes.spatial
    return Product(x, axis, weight, axes.reads, setting(node, "bias"), axis)


@rewrites("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(writer: Writer, node: fx.Node) -> Any:
    """A first state that is a constant has the kept units only."""
    states = setting(node, "hx")
    several = isinstance(states, list | tuple)
    sizes = writer.labels[node][1:]
    chosen = [
        _chosen_state(writer, node, state, labels)
        for state, labels in zip(states if several else [states], sizes, strict=True)
    ]
    args = (node.args[0], chosen if several else chosen[0], *node.args[2:])
    return args, node.kwargs, node.target


@rewrites("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _recurrent_cell(writer: Writer, node: fx.Node) -> Any:
    states = setting(node, "hx")
    several = isinstance(states, list | tuple)
    labels = writer.labels[node]
    sizes = labels if isinstance(labels, list) else [labels]
    chosen = [
        _chosen_state(writer, node, state, made)
        for state, made in zip(states if several else [states], sizes, strict=True)
    ]
    args = (node.args[0], chosen if several else chosen[0], *node.args[2:])
    return args, node.kwargs, node.target


def _chosen_state(writer: Writer, node: fx.Node, state: Any, made: Tensor) -> Any:
    flags = writer.flags(made, made.ndim - 1)
    labels = writer.labels.get(state)
    if bool(flags.all()) or (labels is not None and bool((labels >= 0).any())):
        return state  # its own labels say what is kept
    index = flags.nonzero()[:, 0].to(torch.int32)
    stored = writer.tensor(f"constants.{node.name}_{state.name}", index)
    return writer.emit("call_function", _SELECT, (writer.filled(state), made.ndim - 1, stored))


def _bias(writer: Writer, node: fx.Node, product: Product) -> Result:
    """The output of a layer that reads nothing."""
    if product.bias is None:
        return writer.constant(node, 0.0)
    labels = writer.labels[node]
    sizes = [-1 if d == product.out else writer.size(node, d) for d in range(labels.ndim)]
    shape = [-1 if d == product.out else 1 for d in range(labels.ndim)]
    column = writer.emit(
        "call_function", "torch.ops.aten.view.default", (writer.filled(product.bias), shape)
    )
    return writer.emit("call_function", "torch.ops.aten.expand.default", (column, sizes))


@rewrites("view", "reshape", "_unsafe_view", "expand")
def _view(writer: Writer, node: fx.Node) -> Any:
    written: Any = node.args[1]
    sizes = writer.sizes(writer.labels[node], written)
    return (node.args[0], sizes, *node.args[2:]), node.kwargs, node.target


@rewrites("unflatten")
def _unflatten(writer: Writer, node: fx.Node) -> Any:
    labels = writer.labels[node]
    sizes: Any = setting(node, "sizes")
    dim = int(setting(node, "dim")) % (labels.ndim - len(sizes) + 1)
    return (node.args[0], dim, writer.sizes(labels, sizes, dim)), {}, node.target


def _along(writer: Writer, node: fx.Node) -> tuple[int, Tensor]:
    """Return the axis along which a part is taken, and which of its positions are kept."""
    labels = writer.labels[node.args[0]]  # type: ignore[index]
    dim = int(setting(node, "dim")) % labels.ndim
    flags = writer.flags(labels, dim)
    if not bool(flags.all()):
        writer.whole(node.args[0], dim)  # type: ignore[arg-type]
    return dim, flags


@rewrites("slice", "narrow")
def _slice(writer: Writer, node: fx.Node) -> Any:
    dim, flags = _along(writer, node)
    if bool(flags.all()):
        return node.args, node.kwargs, node.target
    start, end, step = (setting(node, name) for name in ("start", "end", "step"))
    if operator_name(node) == "narrow":
        end, step = start + setting(node, "length"), 1
    start, end, step = slice(start, end, step).indices(len(flags))
    first, last = int(flags[:start].sum()), int(flags[:end].sum())
    return (node.args[0], dim, first, last, step), {}, torch.ops.aten.slice.Tensor


@rewrites("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def _split(writer: Writer, node: fx.Node) -> Any:
    dim, flags = _along(writer, node)
    if bool(flags.all()):
        return node.args, node.kwargs, node.target
    lengths = [part.shape[dim] for part in writer.labels[node]]
    sizes = [int(part.sum()) for part in flags.split(lengths)]
    return (node.args[0], sizes, dim), {}, torch.ops.aten.split_with_sizes.default


@rewrites("slice_scatter")
def _slice_scatter(writer: Writer, node: fx.Node) -> Any:
    dim, flags = _along(writer, node)
    if bool(flags.all()):
        return node.args, node.kwargs, node.target
    start, end, step = (setting(node, name) for name in ("start", "end", "step"))
    start, end, step = slice(start, end, step).indices(len(flags))
    first, last = int(flags[:start].sum()), int(flags[:end].sum())
    return (*node.args[:2], dim, first, last, step), {}, node.target


@rewrites("_native_batch_norm_legit_no_training")
def _batch_norm_without_writes(writer: Writer, node: fx.Node) -> Any:
    x, weight, bias, mean, variance, momentum, epsilon = node.args
    args = (x, weight, bias, mean, variance, False, momentum, epsilon, False)
    plain: Any = torch.ops.aten.batch_norm.default
    result, _, target = _batch_norm_call(writer, node, args, mean, plain)
    if target is not None:
        result = writer.emit("call_function", f"torch.ops.{plain}", writer.filled(tuple(result)))
    return (result, None, None), {}, None


@rewrites("roll")
def _roll(writer: Writer, node: fx.Node) -> Any:
    labels = writer.labels[node.args[0]]  # type: ignore[index]
    shifts, dims = list(setting(node, "shifts")), list(setting(node, "dims"))
    for position, dim in enumerate(dims):
        flags = writer.flags(labels, dim % labels.ndim)
        if not bool(flags.all()):
            writer.whole(node.args[0], dim % labels.ndim)  # type: ignore[arg-type]
            moved = shifts[position] % len(flags)
            shifts[position] = int(flags[len(flags) - moved :].sum())
    return (node.args[0], shifts, dims), {}, node.target


@rewrites("index", "index_select")
def _index(writer: Writer, node: fx.Node) -> Any:
    labels = writer.labels.get(node.args[0])  # type: ignore[arg-type]
    if labels is None:
        return node.args, node.kwargs, node.target
    single = operator_name(node) == "index_select"
    given: Any = [setting(node, "index")] if single else setting(node, "indices")
    dims = [int(setting(node, "dim")) % labels.ndim] if single else range(len(given))
    indices = []
    for dim, index in zip(dims, given, strict=True):
        flags = writer.flags(labels, dim)
        if index is not None and not bool(flags.all()):
            writer.whole(node.args[0], dim)  # type: ignore[arg-type]
            values = writer.constants[index]
            chosen = values.cpu() % len(flags)
            positions = (flags.cumsum(0) - 1)[chosen[flags[chosen]]].to(values)
            index = writer.tensor(f"constants.{node.name}_{dim}", positions)
        indices.append(index)
    if single:
        return (node.args[0], dims[0], indices[0]), {}, node.target
    return (node.args[0], indices), {}, node.target


@rewrites("cat", "concat", "concatenate", "hstack", "stack")
def _cat(writer: Writer, node: fx.Node) -> Any:
    parts: Any = node.args[0]
    kept = [part for part in parts if writer.results[part] is not DEAD]
    return (kept, *node.args[1:]), node.kwargs, node.target


@rewrites("pad", "constant_pad_nd")
def _pad(writer: Writer, node: fx.Node) -> Any:
    """Channels are padded around the kept ones; without a kept one, the padding remains."""
    if writer.results[node.args[0]] is DEAD:  # type: ignore[index]
        return writer.constant(node, float(setting(node, "value") or 0.0)), {}, None
    labels = writer.labels[node]
    widths = list(setting(node, "pad"))
    for position in range(len(widths) // 2):
        flags = writer.flags(labels, labels.ndim - 1 - position)
        if not bool(flags.all()):
            before, after = widths[2 * position : 2 * position + 2]
            kept = int(flags[:before].sum()), int(flags[len(flags) - after :].sum())
            widths[2 * position : 2 * position + 2] = kept
    return _with(node, "pad", widths)


@rewrites("alpha_dropout", "dropout", "dropout_", "feature_dropout")
def _dropout(writer: Writer, node: fx.Node) -> Any:
    """A module, which drops in training; nothing where it would never drop."""
    if setting(node, "train") is not False:
        return node.args, node.kwargs, node.target
    x, rate = writer.filled(node.args[0]), float(setting(node, "p"))
    if rate:
        name = f"dropouts.{node.name}"
        made = _DROPOUTS[operator_name(node)](value_of(node).ndim)
        writer.layers[name] = made(rate).eval()
        x = writer.emit("call_module", name, (x,))
    return x, {}, None


@rewrites("batch_norm")
def _batch_norm(writer: Writer, node: fx.Node) -> Any:
    """A module where it was one: its statistics move in training."""
    mean = setting(node, "running_mean")
    return _batch_norm_call(writer, node, node.args, mean, node.target)


def _batch_norm_call(writer: Writer, node: fx.Node, args: Any, mean: Any, target: Any) -> Any:
    tensor = writer.exported.names.get(str(mean), "")
    name, _, key = tensor.rpartition(".")
    module = writer.modules.get(name) if name and key == "running_mean" else None
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return args, node.kwargs, target
    if name not in writer.layers:
        state = module.state_dict(keep_vars=True)
        parts = {key: writer.kept_part(f"{name}.{key}", value) for key, value in state.items()}
        mean = parts["running_mean"]
        # A class of another package may do more than this call, such as an activation.
        made = _BATCH_NORMS[value_of(node.args[0]).ndim](
            len(mean), module.eps, module.momentum, module.affine, device=mean.device,
            dtype=mean.dtype,
        )  # fmt: skip
        made.load_state_dict({key: parts[key] for key in made.state_dict()})
        for key, parameter in made.named_parameters():
            parameter.requires_grad_(parts[key].requires_grad)
        writer.layers[name] = made.eval()
    x = writer.filled(node.args[0])
    return writer.emit("call_module", name, (x,)), {}, None


@rewrites("group_norm")
def _group_norm(writer: Writer, node: fx.Node) -> Any:
    labels = writer.labels[node.args[0]]  # type: ignore[index]
    flags = writer.flags(labels, 1)
    groups = int(setting(node, "num_groups"))
    return _with(node, "num_groups", groups * int(flags.sum()) // len(flags))


def _with(node: fx.Node, name: str, value: Any) -> Any:
    """A call with another value of one argument."""
    target: Any = node.target
    position = [argument.name for argument in target._schema.arguments].index(name)
    args = list(node.args)
    if position < len(args):
        args[position] = value
        return tuple(args), node.kwargs, target
    return tuple(args), {**node.kwargs, name: value}, target
