"""Normalisation, and other layers whose parameters are pruned with the channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_relevance.edges.coupling.label_tensors import KEPT, filled
from pyro_relevance.edges.coupling.labelling import Labelling
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.registry import note, operator
from pyro_relevance.edges.reasons import Why

__all__ = ["channels", "prelu", "group_norm", "layer_norm"]


_NORM = "num_features eps momentum affine track_running_stats"


def _resize_norm(module: Any) -> None:
    sizes = [module.weight, module.running_mean]
    module.num_features = next(len(tensor) for tensor in sizes if tensor is not None)


def _resize_prelu(module: nn.PReLU) -> None:
    module.num_parameters = len(module.weight)


def _resize_group_norm(module: nn.GroupNorm) -> None:
    width = module.num_channels // module.num_groups
    module.num_channels = len(module.weight)
    module.num_groups = module.num_channels // width


@operator(
    "batch_norm",
    modules={
        nn.BatchNorm2d: _NORM,
        nn.BatchNorm3d: _NORM,
        nn.modules.batchnorm._BatchNorm: None,
    },
    resize=_resize_norm,
    saved=True,
)
@operator(
    "instance_norm",
    modules={
        nn.InstanceNorm1d: _NORM,
        nn.InstanceNorm2d: _NORM,
        nn.InstanceNorm3d: _NORM,
        nn.modules.batchnorm._NormBase: None,
    },
    resize=_resize_norm,
    saved=True,
)
def channels(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """BatchNorm and InstanceNorm: each channel of axis 1 has its own parameters."""
    labels = run.value(node.args[0])
    columns = torch.from_numpy(run.columns(labels, 1))
    for argument in node.args[1:5]:
        if isinstance(argument, fx.Node) and argument not in run.constants:
            run.join_along(run.value(argument), columns, "normalisation")
    return labels  # type: ignore[no-any-return]


@operator("_native_batch_norm_legit_no_training", saved=True)
def batch_norm_without_writes(run: Labelling, node: fx.Node, name: str) -> Any:
    """BatchNorm in a graph whose operators do not write: the result and two empty statistics."""
    result = channels(run, node, name)
    values = value_of(node)
    return [result, *(filled(tuple(value.shape), KEPT) for value in values[1:])]


@operator(
    "prelu",
    modules={nn.PReLU: "num_parameters"},
    resize=_resize_prelu,
    last_axis="channels",
    saved=True,
)
def prelu(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Join the slopes of a PReLU with its channels."""
    labels, slopes = run.value(node.args[0]), run.value(node.args[1])
    if slopes is not None and slopes.numel() > 1:
        run.join_along(slopes, torch.from_numpy(run.columns(labels, 1)), "its slope")
    return labels  # type: ignore[no-any-return]


@operator(
    "group_norm",
    modules={nn.GroupNorm: "num_groups num_channels eps affine"},
    resize=_resize_group_norm,
    saved=True,
)
def group_norm(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """GroupNorm takes statistics over each group of channels: a group is pruned as a whole."""
    labels = run.value(node.args[0])
    groups = int(node.args[1])  # type: ignore[arg-type]
    columns = torch.from_numpy(run.columns(labels, 1))
    size = len(columns) // groups
    if size > 1:
        run.join(
            columns.reshape(groups, size), columns.reshape(groups, size)[:, :1].expand(-1, size)
        )
    if groups == 1 and size > 1:
        run.block(labels, Why.READ_TOGETHER.reason(what="GroupNorm with one group"))
    for argument in node.args[2:4]:
        if isinstance(argument, fx.Node):
            run.join_along(run.value(argument), columns, "normalisation")
    return labels  # type: ignore[no-any-return]


@operator(
    "layer_norm",
    modules={nn.LayerNorm: "normalized_shape eps elementwise_affine bias"},
    last_axis="together",
    saved=True,
)
@operator("rms_norm", modules={nn.RMSNorm: "normalized_shape eps elementwise_affine"}, saved=True)
def layer_norm(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Block the labels that LayerNorm normalises together."""
    labels = run.value(node.args[0])
    normalised: Any = node.args[1]
    dims = list(range(labels.ndim - len(normalised), labels.ndim))
    run.block_varying(labels, dims, Why.READ_TOGETHER.reason(what="LayerNorm"))
    for argument in node.args[2:4]:
        if isinstance(argument, fx.Node) and argument not in run.constants:
            run.join(labels, run.value(argument).expand_as(labels))
    return labels  # type: ignore[no-any-return]


# Without an example, the channels are known to be the last axis for this kind only.
note("batch_norm1d", modules={nn.BatchNorm1d: _NORM}, resize=_resize_norm, last_axis="channels")
note("local_response_norm", modules={nn.LocalResponseNorm: "size alpha beta k"})
