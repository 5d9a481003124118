"""A network's architecture as JSON, so that files are read without running code stored in them.

Only trees of ``nn.Sequential`` over the modules listed here have a description; a description says
nothing about the values of parameters and buffers, which are stored beside it.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pyro_relevance.plain_modules import Constant, SelectFeatures

__all__ = ["build", "describe"]

_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_NORM = "num_features eps momentum affine track_running_stats"
_POOL = "kernel_size stride padding"
_MODULES: dict[type[nn.Module], str] = {
    nn.Linear: "in_features out_features bias",
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.LayerNorm: "normalized_shape eps elementwise_affine bias",
    nn.MaxPool2d: f"{_POOL} dilation ceil_mode",
    nn.AvgPool2d: f"{_POOL} ceil_mode count_include_pad divisor_override",
    nn.AdaptiveAvgPool2d: "output_size",
    nn.Flatten: "start_dim end_dim",
    nn.Identity: "",
    nn.Dropout: "p",
    nn.Dropout2d: "p",
    nn.AlphaDropout: "p",
    nn.ReLU: "",
    nn.ReLU6: "",
    nn.Tanh: "",
    nn.Sigmoid: "",
    nn.SiLU: "",
    nn.Mish: "",
    nn.SELU: "",
    nn.Softsign: "",
    nn.LogSigmoid: "",
    nn.Tanhshrink: "",
    nn.Hardsigmoid: "",
    nn.Hardswish: "",
    nn.GELU: "approximate",
    nn.ELU: "alpha",
    nn.CELU: "alpha",
    nn.LeakyReLU: "negative_slope",
    nn.Softplus: "beta threshold",
    nn.Softshrink: "lambd",
    nn.Hardshrink: "lambd",
    nn.Hardtanh: "min_val max_val",
    nn.Threshold: "threshold value",
    nn.PReLU: "num_parameters",
    nn.Softmax: "dim",
    nn.LogSoftmax: "dim",
}
_BY_NAME = {module.__name__: module for module in _MODULES}


def describe(module: nn.Module) -> dict[str, Any]:
    """Describe a network by the types, names and settings of its modules.

    Args:
        module: A tree of ``nn.Sequential`` (or classes that only fill one, such as ``MLP``) over
            standard modules.

    Returns:
        A JSON-able description for :func:`build`.

    Raises:
        ValueError: A module has no description.
    """
    return _describe(module, "")


def build(description: Mapping[str, Any]) -> nn.Module:
    """Make the network that :func:`describe` described, with fresh parameters.

    The random state is left alone.

    Args:
        description: What :func:`describe` returned, possibly read from JSON.

    Returns:
        A network of ``nn.Sequential`` and standard modules, in training mode.

    Raises:
        ValueError: The description is damaged or names an unknown module.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return _build(description)


def _describe(module: nn.Module, name: str) -> dict[str, Any]:
    where = f"module {name!r}" if name else "the network"
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(
            f"Expected modules without hooks, but got one on {where}. Remove it before describing."
        )
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        own = [*module._parameters, *module._buffers]
        if own:
            raise ValueError(f"Expected {where} to hold modules alone, but got {own} beside them.")
        children = {
            key: _describe(child, f"{name}.{key}".strip("."))
            for key, child in module._modules.items()
            if child
        }
        return {"type": "Sequential", "children": children}
    if type(module) is SelectFeatures:
        return {"type": "SelectFeatures", "arguments": {"num_features": len(module.index)}}
    if type(module) is Constant:
        return {"type": "Constant", "arguments": {"shape": list(module.value.shape)}}
    if type(module) not in _MODULES:
        raise ValueError(
            f"Expected nn.Sequential over standard modules, but got {type(module).__name__} as "
            f"{where}. "
            "Write the network as nn.Sequential, or keep its state_dict and its code yourself."
        )
    arguments = {key: _argument(module, key) for key in _MODULES[type(module)].split()}
    return {"type": type(module).__name__, "arguments": arguments}


def _argument(module: nn.Module, key: str) -> Any:
    value = getattr(module, key)
    if key == "bias":
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def _build(description: Mapping[str, Any]) -> nn.Module:
    arguments: dict[str, Any]
    try:
        kind = description["type"]
        if kind == "Sequential":
            return nn.Sequential(
                OrderedDict((key, _build(child)) for key, child in description["children"].items())
            )
        arguments = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in description["arguments"].items()
        }
        if kind == "SelectFeatures":
            return SelectFeatures(range(arguments["num_features"]))
        if kind == "Constant":
            return Constant(torch.zeros(arguments["shape"]))
        return _BY_NAME[kind](**arguments)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected a description made by describe(), but got {description!r}: {error!r}"
        ) from error
