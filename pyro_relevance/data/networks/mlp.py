"""Multilayer perceptrons: the feed-forward networks of the regression tables, and LeNet-300-100."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

__all__ = ["MLP", "LeNet300100"]


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    The children are called ``hidden1, activation1, hidden2, activation2, ..., output``, so that
    groups of edges have readable names (``"hidden1.units"``).

    Args:
        num_inputs: Number of input columns.
        hidden: Number of units of each hidden layer; empty for a linear model.
        num_outputs: Number of outputs.
        activation: Makes the activation after each hidden layer.

    Raises:
        ValueError: A size is not positive.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: Sequence[int],
        num_outputs: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        sizes = (num_inputs, *hidden, num_outputs)
        if min(sizes) < 1:
            raise ValueError(
                f"Expected layer sizes of at least 1, but got {sizes}. Leave out empty layers."
            )
        super().__init__(_layers(sizes, activation))


def _layers(
    sizes: Sequence[int], activation: Callable[[], nn.Module]
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for depth in range(1, len(sizes) - 1):
        layers[f"hidden{depth}"] = nn.Linear(sizes[depth - 1], sizes[depth])
        layers[f"activation{depth}"] = activation()
    layers["output"] = nn.Linear(sizes[-2], sizes[-1])
    return layers


class LeNet300100(nn.Sequential):
    """LeNet-300-100: 28 x 28 images, two hidden layers of ReLU units, 10 classes.

    It has 266,610 parameters and takes ``(num_data, 1, 28, 28)`` or ``(num_data, 784)`` inputs.

    References:
        LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition,
        Proc. IEEE 1998.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict([("flatten", nn.Flatten()), *_layers((784, 300, 100, 10), nn.ReLU).items()])
        )
