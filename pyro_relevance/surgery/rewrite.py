"""A cut network as a list of operations, with the numbers in them that fit what is left.

Cutting heads of attention, or a whole layer, changes what is written into ``forward()``: the number
of heads, the sizes of parts, the call of a layer that is left with nothing to read. Here the
network is traced for any number of examples, and its operations are written down anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_unflatten

from pyro_relevance.edges.coupling import Coupling, Labels, follow_graph, operator_name, setting
from pyro_relevance.edges.coupling.label_tensors import FILLER, narrowed
from pyro_relevance.edges.exported import Exported, export_graph, value_of
from pyro_relevance.errors import SurgeryError
from pyro_relevance.surgery.plain_modules import GraphNetwork, Result, Step, name_of_function

__all__ = ["resized_network"]

_LAYERS = {
    "linear": (1, 0),
    "conv1d": (1, 1),
    "conv2d": (1, 2),
    "conv3d": (1, 3),
    "conv_transpose1d": (0, 1),
    "conv_transpose2d": (0, 2),
    "conv_transpose3d": (0, 3),
}
"""For each layer, the axis of its weight that reads, and its number of spatial axes."""
_DROPOUTS: dict[str, Callable[[int], type[nn.Module]]] = {
    "alpha_dropout": lambda ndim: nn.AlphaDropout,
    "dropout": lambda ndim: nn.Dropout,
    "dropout_": lambda ndim: nn.Dropout,
    "feature_dropout": lambda ndim: {4: nn.Dropout2d, 5: nn.Dropout3d}.get(ndim, nn.Dropout1d),
}
"""From the operation and the number of axes to the layer that does the same in training."""
_SIZE = "torch.ops.aten.sym_size.int"


def resized_network(
    network: nn.Module,
    arguments: tuple[Tensor, ...],
    kept: Mapping[tuple[str, int], Tensor],
) -> GraphNetwork:
    """Write a network down as operations on what is left of its tensors.

    It computes what the network computes in evaluation mode, for any number of examples. Layers
    that have nothing left to read become their bias; what then leads nowhere is left out, and so
    are parameters and buffers that evaluation does not use. BatchNorm and dropout are modules,
    which do in training what they did; what evaluation does not show (dropout inside of attention,
    stochastic depth) is gone.

    Args:
        network: Network of the old sizes whose cut columns are zero; it is not touched.
        arguments: ``(num_data, *input_shape)`` inputs.
        kept: For (tensor, axis), booleans of what stays along the axis.

    Returns:
        The network.

    Raises:
        EdgeError: The network cannot be traced for any number of examples.
        SurgeryError: An operation has no form with the new sizes.
    """
    exported = export_graph(network, arguments, any_batch=True)
    coupling, labels, constants = follow_graph(exported)
    modules = dict(network.named_modules())
    return _Writer(exported, modules, labels, constants, _dropped(coupling, kept), kept).network()


def _dropped(coupling: Coupling, kept: Mapping[tuple[str, int], Tensor]) -> NDArray[np.bool_]:
    """Return whether each label is cut; the last entries are for labels below zero."""
    roots = coupling.roots
    cut = np.zeros(len(roots), dtype=bool)
    for axis, flags in kept.items():
        if axis in coupling.makers:
            made = coupling.makers[axis]
            cut[roots[made[~flags.numpy() & (made >= 0)]]] = True
    return np.concatenate([cut[roots], [False, False]])


class _Dead:
    """Stands for a value of which nothing is left."""


_DEAD = _Dead()


class _Writer:
    """One walk over the graph, writing steps."""

    def __init__(
        self,
        exported: Exported,
        modules: Mapping[str, nn.Module],
        labels: Labels,
        constants: Mapping[fx.Node, Any],
        dropped: NDArray[np.bool_],
        kept: Mapping[tuple[str, int], Tensor],
    ) -> None:
        self.exported, self.modules = exported, modules
        self.labels, self.constants = labels, constants
        self.dropped, self.kept = dropped, kept
        self.steps: list[Step] = []
        self.effects: set[int] = set()  # steps that change what an earlier one gave
        self.results: dict[fx.Node, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.layers: dict[str, nn.Module] = {}
        self.input: fx.Node | None = None

    def network(self) -> GraphNetwork:
        """Return the whole as a module."""
        nodes = list(self.exported.graph.nodes)
        placed = [node for node in nodes if node.op == "placeholder"]
        for node in sorted(placed, key=self._is_tensor):  # inputs stand before all else
            self._place(node)
        for node in nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                leaves = [self._filled(leaf) for leaf in tree_leaves(node.args)]
                self._emit("output", "output", (tree_unflatten(leaves, self.exported.outputs),))
        steps = _used(self.steps, self.effects)
        read = {step.target for step in steps if step.op in ("get_attr", "call_module")}
        return GraphNetwork(
            steps,
            {name: module for name, module in self.layers.items() if name in read},
            {name: tensor for name, tensor in self.tensors.items() if name in read},
        )

    def _emit(self, op: str, target: str, args: Any = (), kwargs: Any = None) -> Result:
        self.steps.append(Step(op, target, tuple(args), dict(kwargs or {})))
        return Result(len(self.steps) - 1)

    def _tensor(self, name: str, tensor: Tensor) -> Result:
        self.tensors[name] = tensor
        return self._emit("get_attr", name)

    # Where values come from

    def _is_tensor(self, node: fx.Node) -> bool:
        return node.name in self.exported.names or node.name in self.exported.constants

    def _place(self, node: fx.Node) -> None:
        exported = self.exported
        if node.name in exported.constants:
            constant = exported.constants[node.name].detach().clone()
            self.results[node] = self._tensor(f"constants.{node.name}", constant)
        elif node.name in exported.names:
            name = exported.names[node.name]
            self.results[node] = self._tensor(name, self._cut(name, exported.tensors[name]))
        else:
            self.input = self.input or node
            self.results[node] = self._emit("placeholder", node.name)

    def _cut(self, name: str, tensor: Tensor) -> Tensor:
        small = tensor.detach().clone()
        for dim in range(tensor.ndim):
            flags = self.kept.get((name, dim))
            if flags is not None and not bool(flags.all()):
                small = small.index_select(dim, flags.nonzero()[:, 0].to(small.device))
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(small, requires_grad=tensor.requires_grad)
        return small

    # What is left of a value

    def _flags(self, labels: Tensor, dim: int) -> Tensor:
        """``(size,)`` booleans: what stays along an axis of a value."""
        (values,) = narrowed(labels)
        size = labels.shape[dim]
        if values.shape[dim] == 1:
            return torch.ones(size, dtype=torch.bool)
        along = values.movedim(dim, 0).reshape(size, -1).numpy()
        gone = self.dropped[along]
        stays = ~gone & (along != FILLER)
        return torch.from_numpy(~(gone.any(1) & ~stays.any(1)))

    def _is_dead(self, labels: Any) -> bool:
        parts = [leaf for leaf in tree_leaves(labels) if isinstance(leaf, Tensor)]
        return bool(parts) and all(self._nothing_left(part) for part in parts)

    def _nothing_left(self, labels: Tensor) -> bool:
        values = narrowed(labels)[0].numpy()
        gone = self.dropped[values]
        return bool(gone.any() and (gone | (values == FILLER)).all())

    # Operations

    def _call(self, node: fx.Node) -> None:
        if value_of(node) is None:
            return  # a check of sizes
        if self._is_dead(self.labels.get(node)):
            self.results[node] = _DEAD
            return
        name = operator_name(node)
        if name in _DROPOUTS and setting(node, "train") is False:
            self.results[node] = self._dropout(node, name)
            return
        if node.kwargs.get("device") is not None and not node.all_input_nodes:
            # Made from nothing on a device that is written down: a buffer moves with the network.
            self.results[node] = self._tensor(f"constants.{node.name}", self.constants[node])
            return
        # What is made of constants alone has no labels and stays as it is.
        rewrite = self._rewrite_of(name) if node in self.labels else None
        call: Any = (node.args, node.kwargs, node.target)
        args, kwargs, target = rewrite(node) if rewrite else call
        if isinstance(args, Result):
            self.results[node] = args
            return
        found = name_of_function(target)
        if found is None:
            raise SurgeryError(
                f"Expected operations that a file can name, but got {target}. Keep whole what "
                "makes the network a list of operations: heads of attention and whole layers."
            )
        schema = getattr(target, "_schema", None)
        if schema is not None and schema.is_mutable:
            self.effects.add(len(self.steps))
        self.results[node] = self._emit(
            "call_function", found, self._filled(tuple(args)), self._filled(dict(kwargs))
        )

    def _filled(self, argument: Any) -> Any:
        """An argument with results in the place of nodes, in plain containers."""
        if isinstance(argument, tuple | list):
            items = [self._filled(item) for item in argument]
            return tuple(items) if isinstance(argument, tuple) else items
        if isinstance(argument, dict):
            return {key: self._filled(value) for key, value in argument.items()}
        if not isinstance(argument, fx.Node):
            return argument
        result = self.results[argument]
        if result is _DEAD:
            raise SurgeryError(
                f"Expected an operation that can do without {argument.name!r}, of which nothing is "
                "left, but found none. Keep one unit of each layer with on_empty='keep'."
            )
        return result

    def _rewrite_of(self, name: str) -> Callable[[fx.Node], Any] | None:
        if name in _LAYERS:
            return self._layer
        for names, rewrite in (
            (("view", "reshape", "_unsafe_view", "expand"), self._view),
            (("unflatten",), self._unflatten),
            (("slice", "narrow"), self._slice),
            (_SPLITS, self._split),
            (("roll",), self._roll),
            (("index", "index_select"), self._index),
            (("cat", "concat", "concatenate", "stack"), self._cat),
            (("pad", "constant_pad_nd"), self._pad),
            (("group_norm",), self._group_norm),
            (("batch_norm",), self._batch_norm),
        ):
            if name in names:
                return rewrite
        return None

    def _layer(self, node: fx.Node) -> Any:
        """A layer reads the columns that are left; with none left it is its bias."""
        name = operator_name(node)
        weight = self.exported.names.get(str(node.args[1]), "")  # "" for a part of a parameter
        reads, spatial = _LAYERS[name]
        labels = self.labels[node.args[0]]  # type: ignore[index]
        groups = 1 if name == "linear" else int(setting(node, "groups"))
        there = self._flags(labels, labels.ndim - 1 - spatial)
        if self._is_dead(labels):
            there = torch.zeros_like(there)
        columns = self.kept.get((weight, reads), there) if groups == 1 else there
        if not bool((columns & there).any()):
            return self._bias(node, spatial), {}, None
        args: Any = node.args
        kwargs: Any = node.kwargs
        target: Any = node.target
        if groups > 1:
            old = self.exported.tensors[weight].shape[0]
            left = len(self.tensors[weight])
            args, kwargs, target = _with(node, "groups", groups * left // old)
        if not bool((columns[there]).all()):
            # Inputs that this layer does not read, though another one does.
            module = weight.rpartition(".")[0]
            index = columns[there].nonzero()[:, 0].to(torch.int32)
            index = index.to(self.tensors[weight].device)
            chosen = self._emit(
                "call_function",
                "torch.ops.aten.index_select.default",
                (self._filled(args[0]), labels.ndim - 1 - spatial,
                 self._tensor(f"{module}.index".lstrip("."), index)),
            )  # fmt: skip
            args = (chosen, *args[1:])
        return args, kwargs, target

    def _bias(self, node: fx.Node, spatial: int) -> Result:
        """The output of a layer that reads nothing."""
        bias = setting(node, "bias")
        if bias is None:
            return self._constant(node, 0.0)
        labels = self.labels[node]
        channel = labels.ndim - 1 - spatial
        sizes = [-1 if d == channel else self._size(node, d) for d in range(labels.ndim)]
        shape = [-1 if d == channel else 1 for d in range(labels.ndim)]
        column = self._emit(
            "call_function", "torch.ops.aten.view.default", (self._filled(bias), shape)
        )
        return self._emit("call_function", "torch.ops.aten.expand.default", (column, sizes))

    def _size(self, node: fx.Node, dim: int) -> Any:
        """A size of a value as a number, or as a multiple of the number of examples."""
        traced = node.meta["val"].shape[dim]
        size = value_of(node).shape[dim]
        if isinstance(traced, int):
            return size
        assert self.input is not None
        num_examples = value_of(self.input).shape[0]
        count = self._emit("call_function", _SIZE, (self._filled(self.input), 0))
        if size == num_examples:
            return count
        return self._emit("call_function", "operator.mul", (count, size // num_examples))

    def _sizes(self, labels: Tensor, written: Sequence[Any], first: int = 0) -> list[Any]:
        """Sizes as they are written, with those that changed."""
        sizes: list[Any] = []
        for dim, size in enumerate(written, first):
            old, new = labels.shape[dim], int(self._flags(labels, dim).sum())
            if new == old or size == -1:
                sizes.append(size)
            elif isinstance(size, fx.Node):
                product = self._emit("call_function", "operator.mul", (self._filled(size), new))
                sizes.append(self._emit("call_function", "operator.floordiv", (product, old)))
            else:
                sizes.append(new)
        return sizes

    def _view(self, node: fx.Node) -> Any:
        written: Any = node.args[1]
        sizes = self._sizes(self.labels[node], written)
        return (node.args[0], sizes, *node.args[2:]), node.kwargs, node.target

    def _unflatten(self, node: fx.Node) -> Any:
        labels = self.labels[node]
        sizes: Any = setting(node, "sizes")
        dim = int(setting(node, "dim")) % (labels.ndim - len(sizes) + 1)
        return (node.args[0], dim, self._sizes(labels, sizes, dim)), {}, node.target

    def _slice(self, node: fx.Node) -> Any:
        labels = self.labels[node.args[0]]  # type: ignore[index]
        dim = int(setting(node, "dim")) % labels.ndim
        flags = self._flags(labels, dim)
        if bool(flags.all()):
            return node.args, node.kwargs, node.target
        start, end, step = (setting(node, name) for name in ("start", "end", "step"))
        if operator_name(node) == "narrow":
            end, step = start + setting(node, "length"), 1
        start, end, step = slice(start, end, step).indices(len(flags))
        first, last = int(flags[:start].sum()), int(flags[:end].sum())
        return (node.args[0], dim, first, last, step), {}, torch.ops.aten.slice.Tensor

    def _split(self, node: fx.Node) -> Any:
        labels = self.labels[node.args[0]]  # type: ignore[index]
        dim = int(setting(node, "dim")) % labels.ndim
        flags = self._flags(labels, dim)
        if bool(flags.all()):
            return node.args, node.kwargs, node.target
        lengths = [part.shape[dim] for part in self.labels[node]]
        sizes = [int(part.sum()) for part in flags.split(lengths)]
        return (node.args[0], sizes, dim), {}, torch.ops.aten.split_with_sizes.default

    def _roll(self, node: fx.Node) -> Any:
        labels = self.labels[node.args[0]]  # type: ignore[index]
        shifts, dims = list(setting(node, "shifts")), list(setting(node, "dims"))
        for place, dim in enumerate(dims):
            flags = self._flags(labels, dim % labels.ndim)
            if not bool(flags.all()):
                moved = shifts[place] % len(flags)
                shifts[place] = int(flags[len(flags) - moved :].sum())
        return (node.args[0], shifts, dims), {}, node.target

    def _index(self, node: fx.Node) -> Any:
        labels = self.labels.get(node.args[0])  # type: ignore[arg-type]
        if labels is None:
            return node.args, node.kwargs, node.target
        single = operator_name(node) == "index_select"
        given: Any = [setting(node, "index")] if single else setting(node, "indices")
        dims = [int(setting(node, "dim")) % labels.ndim] if single else range(len(given))
        indices = []
        for dim, index in zip(dims, given, strict=True):
            flags = self._flags(labels, dim)
            if index is not None and not bool(flags.all()):
                values = self.constants[index]
                chosen = values.cpu() % len(flags)
                places = (flags.cumsum(0) - 1)[chosen[flags[chosen]]].to(values)
                index = self._tensor(f"constants.{node.name}_{dim}", places)
            indices.append(index)
        if single:
            return (node.args[0], dims[0], indices[0]), {}, node.target
        return (node.args[0], indices), {}, node.target

    def _cat(self, node: fx.Node) -> Any:
        parts: Any = node.args[0]
        left = [part for part in parts if self.results[part] is not _DEAD]
        return (left, *node.args[1:]), node.kwargs, node.target

    def _pad(self, node: fx.Node) -> Any:
        """Channels are added for those that are left; around nothing, the padding stays."""
        if self.results[node.args[0]] is _DEAD:  # type: ignore[index]
            return self._constant(node, float(setting(node, "value") or 0.0)), {}, None
        labels = self.labels[node]
        widths = list(setting(node, "pad"))
        for place in range(len(widths) // 2):
            flags = self._flags(labels, labels.ndim - 1 - place)
            if not bool(flags.all()):
                before, after = widths[2 * place : 2 * place + 2]
                left = int(flags[:before].sum()), int(flags[len(flags) - after :].sum())
                widths[2 * place : 2 * place + 2] = left
        return _with(node, "pad", widths)

    def _constant(self, node: fx.Node, value: float) -> Result:
        """A value of the size that is left of another one."""
        labels = self.labels[node]
        sizes = []
        for dim, old in enumerate(labels.shape):
            new = int(self._flags(labels, dim).sum())
            sizes.append(self._size(node, dim) if new == old else new)
        args, kwargs = (self._filled(self.input), sizes, value), {"dtype": value_of(node).dtype}
        return self._emit("call_function", "torch.ops.aten.new_full.default", args, kwargs)

    def _dropout(self, node: fx.Node, operation: str) -> Any:
        """A module, which drops in training; nothing where it would never drop."""
        x, rate = self._filled(node.args[0]), float(setting(node, "p"))
        if not rate:
            return x
        name = f"dropouts.{node.name}"
        made = _DROPOUTS[operation](value_of(node).ndim)
        self.layers[name] = made(rate).eval()
        return self._emit("call_module", name, (x,))

    def _batch_norm(self, node: fx.Node) -> Any:
        """A module where it was one: its statistics move in training."""
        tensor = self.exported.names.get(str(setting(node, "running_mean")), "")
        name, _, key = tensor.rpartition(".")
        module = self.modules.get(name) if name and key == "running_mean" else None
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            return node.args, node.kwargs, node.target
        if name not in self.layers:
            state = module.state_dict(keep_vars=True)
            parts = {key: self._cut(f"{name}.{key}", value) for key, value in state.items()}
            mean = parts["running_mean"]
            made = type(module)(
                len(mean), module.eps, module.momentum, module.affine, device=mean.device,
                dtype=mean.dtype,
            )  # fmt: skip
            made.load_state_dict(parts)
            for key, parameter in made.named_parameters():
                parameter.requires_grad_(parts[key].requires_grad)
            self.layers[name] = made.eval()
        x = self._filled(node.args[0])
        return self._emit("call_module", name, (x,)), {}, None

    def _group_norm(self, node: fx.Node) -> Any:
        labels = self.labels[node.args[0]]  # type: ignore[index]
        flags = self._flags(labels, 1)
        groups = int(setting(node, "num_groups"))
        return _with(node, "num_groups", groups * int(flags.sum()) // len(flags))


_SPLITS = ("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")


def _with(node: fx.Node, name: str, value: Any) -> Any:
    """A call with another value of one argument."""
    target: Any = node.target
    place = [argument.name for argument in target._schema.arguments].index(name)
    args = list(node.args)
    if place < len(args):
        args[place] = value
        return tuple(args), node.kwargs, target
    return tuple(args), {**node.kwargs, name: value}, target


def _used(steps: Sequence[Step], effects: set[int]) -> list[Step]:
    """Leave out the steps that nothing reads, and number those that stay."""
    needed = {i for i, step in enumerate(steps) if step.op in ("placeholder", "output")} | effects
    for position in range(len(steps) - 1, -1, -1):
        if position in needed:
            needed |= {result.step for result in _reads(steps[position])}
    number = {old: new for new, old in enumerate(sorted(needed))}

    def renumbered(value: Any) -> Any:
        return Result(number[value.step]) if isinstance(value, Result) else value

    return [
        Step(step.op, step.target, *tree_map(renumbered, (step.args, dict(step.kwargs))))
        for position, step in enumerate(steps)
        if position in needed
    ]


def _reads(step: Step) -> list[Result]:
    return [
        leaf for leaf in tree_leaves((step.args, dict(step.kwargs))) if isinstance(leaf, Result)
    ]
