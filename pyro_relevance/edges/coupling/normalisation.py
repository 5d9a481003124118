"""Normalisation, and other layers whose parameters go with the channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pyro_relevance.edges.coupling.labelling import Labelling
from pyro_relevance.edges.reasons import Why

__all__ = ["channels", "prelu", "group_norm", "layer_norm"]


def channels(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """BatchNorm and InstanceNorm: parameters along axis 1 go with its channels."""
    labels = run.value(node.args[0])
    columns = torch.from_numpy(run.columns(labels, 1))
    for argument in node.args[1:5]:
        if isinstance(argument, fx.Node) and argument not in run.constants:
            run.join_along(run.value(argument), columns, "normalisation")
    return labels  # type: ignore[no-any-return]


def prelu(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Join the slopes of a PReLU with its channels."""
    labels, slopes = run.value(node.args[0]), run.value(node.args[1])
    if slopes is not None and slopes.numel() > 1:
        run.join_along(slopes, torch.from_numpy(run.columns(labels, 1)), "its slope")
    return labels  # type: ignore[no-any-return]


def group_norm(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """GroupNorm takes statistics over each group of channels: a group goes as a whole."""
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


def layer_norm(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Block what LayerNorm normalises together."""
    labels = run.value(node.args[0])
    normalised: Any = node.args[1]
    dims = list(range(labels.ndim - len(normalised), labels.ndim))
    run.block_varying(labels, dims, Why.READ_TOGETHER.reason(what="LayerNorm"))
    for argument in node.args[2:4]:
        if isinstance(argument, fx.Node) and argument not in run.constants:
            run.join(labels, run.value(argument).expand_as(labels))
    return labels  # type: ignore[no-any-return]
