"""LeNet-5 as it comes with Caffe: the convolutional network of most pruning tables on MNIST."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["LeNet5Caffe"]


class LeNet5Caffe(nn.Sequential):
    """LeNet-5-Caffe, 20-50-500-10: 28 x 28 images, two 5 x 5 convolutions, 10 classes.

    It has 431,080 parameters and takes ``(num_data, 1, 28, 28)`` inputs. Convolutions have no
    padding and are followed by ReLU and 2 x 2 max-pooling. Children are called ``conv1, ...,
    conv2, ..., hidden1, ..., output``.

    References:
        LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition,
        Proc. IEEE 1998. Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding,
        ACM Multimedia 2014.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(1, 20, 5),
                activation1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(20, 50, 5),
                activation2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                hidden1=nn.Linear(50 * 4 * 4, 500),
                activation3=nn.ReLU(),
                output=nn.Linear(500, 10),
            )
        )
