"""Functions that leave units apart: entry j of the result depends on entry j of the argument."""

from __future__ import annotations

from torch import nn

__all__ = [
    "ELEMENTWISE_MODULES",
    "ELEMENTWISE_NAMES",
    "FLATTEN_NAMES",
    "QUERY_NAMES",
    "RESHAPE_NAMES",
    "SHAPE_KEEPING_MODULES",
    "SHAPE_KEEPING_NAMES",
]

ELEMENTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    nn.LogSigmoid, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold, nn.Dropout,
    nn.AlphaDropout, nn.Identity, nn.RReLU,
)  # fmt: skip
ELEMENTWISE_NAMES = frozenset([
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_",
    "celu", "gelu", "silu", "mish", "tanh", "tanh_", "sigmoid", "sigmoid_", "softplus",
    "softsign", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "softshrink", "hardshrink",
    "tanhshrink", "threshold", "dropout", "alpha_dropout", "rrelu", "neg", "abs", "exp", "expm1",
    "log1p", "sqrt", "square", "sin", "cos", "erf", "clamp", "clip", "pow", "add", "sub", "mul",
    "div", "truediv", "rsqrt", "reciprocal", "clone", "contiguous", "detach", "float", "double",
    "half", "bfloat16", "to", "type_as",
])  # fmt: skip
SHAPE_KEEPING_NAMES = frozenset(["softmax", "log_softmax", "softmin", "layer_norm", "normalize"])
SHAPE_KEEPING_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.LayerNorm)
FLATTEN_NAMES = frozenset(["flatten"])
RESHAPE_NAMES = frozenset(["view", "reshape", "squeeze", "unsqueeze", "unflatten"])
QUERY_NAMES = frozenset(["size", "dim", "numel", "getattr"])
