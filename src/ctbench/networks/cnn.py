"""The convolutional networks of certified training.

CNN3, CNN5 and CNN7 are the three depths in use since Gowal et al. ("On the effectiveness of interval bound
propagation", 2018). CNN7 with a batch norm after every hidden layer is the network of Shi et al. ("Fast
certified robust training with short warmup", NeurIPS 2021), for which IBP, SABR, TAPS and MTL-IBP report results.
CNN7-narrow is the network of Müller et al. ("Certified training: small boxes are all you need", ICLR 2023,
appendix). ConvSmall is the network of Wong & Kolter ("Provable defenses against adversarial examples via
the convex outer adversarial polytope", ICML 2018), ConvLarge the larger network of Wong et al. ("Scaling
provable adversarial defenses", NeurIPS 2018).

    CNN7(width=32).build((3, 32, 32), 10)
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ctbench.networks.base import Architecture
from ctbench.networks.blocks import Conv, conv_blocks, dense_blocks, image_shape


class ConvNet(Architecture):
    """Convolutions, then hidden dense layers, then the logits.

    Not a dataclass itself: subclasses declare the annotated attributes as fields.
    """

    hidden: int
    batch_norm: bool

    @property
    @abstractmethod
    def convs(self) -> list[Conv]:
        """The convolutions in order."""

    @property
    def dense(self) -> list[int]:
        """The units of each hidden dense layer: one layer, unless a subclass overrides this."""
        return [self.hidden]

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        front, features = conv_blocks(self.convs, image_shape(input_shape), batch_norm=self.batch_norm)
        return front + dense_blocks(math.prod(features), self.dense, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class CNN3(ConvNet):
    """Two convolutions and the logits: 24,426 parameters on MNIST."""

    name: ClassVar[str] = "cnn3"
    width: int = 16
    batch_norm: bool = True

    @property
    def convs(self) -> list[Conv]:
        return [Conv(self.width, 5, 2, 2), Conv(2 * self.width, 4, 2, 1)]

    @property
    def dense(self) -> list[int]:
        return []


@dataclass(frozen=True, kw_only=True)
class CNN5(ConvNet):
    """Three convolutions, a dense layer and the logits: 822,106 parameters on MNIST."""

    name: ClassVar[str] = "cnn5"
    width: int = 16
    hidden: int = 512
    batch_norm: bool = True

    @property
    def convs(self) -> list[Conv]:
        return [Conv(self.width, 3, 1, 1), Conv(self.width, 4, 2, 1), Conv(2 * self.width, 4, 2, 1)]


@dataclass(frozen=True, kw_only=True)
class CNN7(ConvNet):
    """Five convolutions, a dense layer and the logits: 17,192,650 parameters on CIFAR-10."""

    name: ClassVar[str] = "cnn7"
    width: int = 64
    hidden: int = 512
    batch_norm: bool = True

    @property
    def convs(self) -> list[Conv]:
        return [
            Conv(self.width, 3, 1, 1),
            Conv(self.width, 3, 1, 1),
            Conv(2 * self.width, 3, 2, 1),
            Conv(2 * self.width, 3, 1, 1),
            Conv(2 * self.width, 3, 1, 1),
        ]


@dataclass(frozen=True, kw_only=True)
class CNN7Narrow(CNN7):
    """CNN7 with half the filters and 216 dense units."""

    name: ClassVar[str] = "cnn7-narrow"
    width: int = 32
    hidden: int = 216


@dataclass(frozen=True, kw_only=True)
class CNN7TinyImageNet(CNN7):
    """CNN7, with a last convolution that halves the image once more: 17,290,120 parameters on TinyImageNet."""

    name: ClassVar[str] = "cnn7-tinyimagenet"

    @property
    def convs(self) -> list[Conv]:
        *front, last = super().convs
        return [*front, last._replace(stride=2)]


@dataclass(frozen=True, kw_only=True)
class ConvSmall(ConvNet):
    """Two convolutions, a dense layer and the logits: 166,406 parameters on MNIST."""

    name: ClassVar[str] = "conv-small"
    width: int = 16
    hidden: int = 100
    batch_norm: bool = False

    @property
    def convs(self) -> list[Conv]:
        return [Conv(self.width, 4, 2, 1), Conv(2 * self.width, 4, 2, 1)]


@dataclass(frozen=True, kw_only=True)
class ConvLarge(ConvNet):
    """Four convolutions, two dense layers and the logits: 1,974,762 parameters on MNIST."""

    name: ClassVar[str] = "conv-large"
    width: int = 32
    hidden: int = 512
    batch_norm: bool = False

    @property
    def convs(self) -> list[Conv]:
        return [
            Conv(self.width, 3, 1, 1),
            Conv(self.width, 4, 2, 1),
            Conv(2 * self.width, 3, 1, 1),
            Conv(2 * self.width, 4, 2, 1),
        ]

    @property
    def dense(self) -> list[int]:
        return [self.hidden, self.hidden]
