"""Ordinary networks of the experiments; none of them knows about edges or gates."""

from pyro_relevance.data.networks.lenet import LeNet5Caffe
from pyro_relevance.data.networks.mlp import MLP, LeNet300100
from pyro_relevance.data.networks.resnet import CifarResNet, ResNet20, ResNet56
from pyro_relevance.data.networks.vgg import VGG16

__all__ = ["MLP", "VGG16", "CifarResNet", "LeNet300100", "LeNet5Caffe", "ResNet20", "ResNet56"]
