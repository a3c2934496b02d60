"""The residual networks of certified training and of verification.

    y = relu(conv(relu(conv(x))) + shortcut(x))        one block, its second convolution 3x3

ResNet is the network of Wong et al. ("Scaling provable adversarial defenses", NeurIPS 2018). It has one block for each
of 16, 16, 32 and 64 filters, and a convolution as the shortcut of every block. The last two blocks halve the image. The
kernel sizes are from the code that the authors published (convex_adversarial): 4x4 with a 2x2 shortcut in blocks that
halve the image, 3x3 with a 1x1 shortcut in the others.

ResNet2B and ResNet4B are the shapes of the benchmark cifar10_resnet of VNN-COMP 2021 (Bak et al., "The second
international verification of neural networks competition", 2021). The image is halved by 3x3 convolutions with
1x1 shortcuts, and a block that does not change the shape adds its input as it is.

The published networks have no batch norms. With `batch_norm=True` there is one after every convolution, including those
of the shortcuts, and after the hidden dense layer.

    ResNet().build((3, 32, 32), 10)
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import nn

from ctbench.networks.base import Architecture
from ctbench.networks.blocks import Conv, Image, Residual, conv_blocks, dense_blocks, image_shape


class Block(NamedTuple):
    """A residual block, described by its first convolution and its shortcut. None: the input itself is the shortcut."""

    first: Conv
    shortcut: Conv | None = None

    @property
    def second(self) -> Conv:
        return Conv(self.first.filters, 3, 1, 1)

    def shape(self, image: Image) -> Image:
        """The output shape for an image of this shape."""
        return self.second.shape(self.first.shape(image))

    def layers(self, image: Image, *, batch_norm: bool) -> list[nn.Module]:
        """The two paths and their sum for images of this shape, and the ReLU after the sum."""
        front, between = conv_blocks([self.first], image, batch_norm=batch_norm)
        main = nn.Sequential(*front, *self.second.layers(between, batch_norm=batch_norm))
        shortcut = self.shortcut.layers(image, batch_norm=batch_norm) if self.shortcut else [nn.Identity()]
        return [Residual(main, nn.Sequential(*shortcut)), nn.ReLU()]


class ResidualNet(Architecture):
    """A convolution, then residual blocks, then a hidden dense layer and the logits.

    Not a dataclass itself: subclasses declare the annotated attributes as fields.
    """

    hidden: int
    batch_norm: bool

    @property
    @abstractmethod
    def stem(self) -> Conv:
        """The first convolution."""

    @property
    @abstractmethod
    def blocks(self) -> list[Block]:
        """The residual blocks in order."""

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        layers, image = conv_blocks([self.stem], image_shape(input_shape), batch_norm=self.batch_norm)
        for block in self.blocks:
            layers += block.layers(image, batch_norm=self.batch_norm)
            image = block.shape(image)
        return layers + dense_blocks(math.prod(image), [self.hidden], classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class ResNet(ResidualNet):
    """Four residual blocks; the last two halve the image: 4,214,850 parameters on CIFAR-10."""

    name: ClassVar[str] = "resnet"
    width: int = 16
    hidden: int = 1000
    batch_norm: bool = False

    @property
    def stem(self) -> Conv:
        return Conv(self.width, 3, 1, 1)

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(Conv(self.width, 3, 1, 1), Conv(self.width, 1, 1, 0)),
            Block(Conv(self.width, 3, 1, 1), Conv(self.width, 1, 1, 0)),
            Block(Conv(2 * self.width, 4, 2, 1), Conv(2 * self.width, 2, 2, 0)),
            Block(Conv(4 * self.width, 4, 2, 1), Conv(4 * self.width, 2, 2, 0)),
        ]


@dataclass(frozen=True, kw_only=True)
class ResNet2B(ResidualNet):
    """Two residual blocks after a convolution that halves the image: 112,006 parameters on CIFAR-10."""

    name: ClassVar[str] = "resnet-2b"
    width: int = 8
    hidden: int = 100
    batch_norm: bool = False

    @property
    def stem(self) -> Conv:
        return Conv(self.width, 3, 2, 1)

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(Conv(2 * self.width, 3, 2, 1), Conv(2 * self.width, 1, 2, 0)),
            Block(Conv(2 * self.width, 3, 1, 1)),
        ]


@dataclass(frozen=True, kw_only=True)
class ResNet4B(ResNet2B):
    """ResNet2B with twice the filters and twice the blocks: 123,734 parameters on CIFAR-10."""

    name: ClassVar[str] = "resnet-4b"
    width: int = 16

    @property
    def blocks(self) -> list[Block]:
        return 2 * super().blocks
