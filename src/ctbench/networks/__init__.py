"""Architectures: frozen records of sizes that build plain torch networks.

    net = CNN7(width=32).build((3, 32, 32), 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    net = architectures()["cnn7"]().build((1, 28, 28), 10)

To add an architecture, write a file in this package with a dataclass that has a `name` and `layers`. A subclass of
`ConvNet` or `ResidualNet` declares its convolutions instead of `layers`.
"""

from ctbench.members import members
from ctbench.networks.base import Architecture
from ctbench.networks.blocks import Conv
from ctbench.networks.cnn import CNN3, CNN5, CNN7, CNN7Narrow, CNN7TinyImageNet, ConvLarge, ConvNet, ConvSmall
from ctbench.networks.given import Given
from ctbench.networks.mlp import MLP
from ctbench.networks.normalize import Normalize
from ctbench.networks.resnet import Block, ResidualNet, ResNet, ResNet2B, ResNet4B
from ctbench.networks.selected import Selected, TwoClasses
from ctbench.networks.weights import Weight, weights
from ctbench.networks.wide_resnet import WideResNet

__all__ = [
    "CNN3",
    "CNN5",
    "CNN7",
    "MLP",
    "Architecture",
    "Block",
    "CNN7Narrow",
    "CNN7TinyImageNet",
    "Conv",
    "ConvLarge",
    "ConvNet",
    "ConvSmall",
    "Given",
    "Normalize",
    "ResNet",
    "ResNet2B",
    "ResNet4B",
    "ResidualNet",
    "Selected",
    "TwoClasses",
    "Weight",
    "WideResNet",
    "architectures",
    "weights",
]


def architectures() -> dict[str, type[Architecture]]:
    """Return all architectures by name: those of this package, and all other subclasses of `Architecture` so far."""
    return members(Architecture)
