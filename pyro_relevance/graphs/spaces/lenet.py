"""Small convolutional networks for MNIST: kernels, pooling and activations are chosen."""

from __future__ import annotations

from torch import nn

from pyro_relevance.graphs.graph import Graph, GraphEdge

__all__ = ["lenet_space"]


def lenet_space(
    num_classes: int = 10,
    *,
    in_channels: int = 1,
    channels: tuple[int, int] = (20, 50),
    hidden: int = 500,
    size: int = 28,
) -> nn.Sequential:
    """Return a relaxed network of the size of LeNet-5-Caffe.

    Two stages of a convolution (3x3 or 5x5) and a pooling (maximum or mean), then a hidden layer
    whose activation is chosen. The classes may also read the features directly. To choose channels
    and units, too, gate them: ``granularity=("operation", "unit")``.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        channels: Channels of the two convolutions, at most.
        hidden: Units of the hidden layer, at most.
        size: Height and width of the images, a multiple of 4.

    Raises:
        ValueError: If the size is not a multiple of 4.
    """
    if size % 4:
        raise ValueError(f"Expected images whose size is a multiple of 4, but got {size}.")
    first, second = channels
    convolutions, pools = ("conv_relu_3x3", "conv_relu_5x5"), ("max_pool_2x2", "avg_pool_2x2")
    features = Graph(
        {"x": in_channels, "c1": first, "p1": first, "c2": second, "p2": second},
        [
            GraphEdge("x", "c1", convolutions),
            GraphEdge("c1", "p1", pools, stride=2),
            GraphEdge("p1", "c2", convolutions),
            GraphEdge("c2", "p2", pools, stride=2),
        ],
        output="p2",
        structure="features",
    )
    flat = second * (size // 4) ** 2
    classifier = Graph(
        {"f": flat, "a": hidden, "h": hidden, "y": num_classes},
        [
            GraphEdge("f", "a", "linear"),
            GraphEdge("a", "h", ("relu", "tanh", "gelu")),
            GraphEdge("h", "y", ("none", "linear")),
            GraphEdge("f", "y", ("none", "linear")),
        ],
        output="y",
        structure="classifier",
    )
    return nn.Sequential(features, nn.Flatten(), classifier)
