"""The convolutional networks of certified training.

CNN3, CNN5 and CNN7 are the three depths in use since Gowal et al. ("On the effectiveness of interval bound
propagation", 2018). CNN7 with a batch norm behind every hidden layer is the network of Shi et al. ("Fast
certified robust training with short warmup", NeurIPS 2021), on which IBP, SABR, TAPS and MTL-IBP report.
CNN7-narrow is that of Müller et al. ("Certified training: small boxes are all you need", ICLR 2023,
appendix). ConvSmall is the network of Wong & Kolter ("Provable defenses against adversarial examples via
the convex outer adversarial polytope", ICML 2018).

    CNN7(width=32).build((3, 32, 32), 10)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ctbench.networks.base import Architecture
from ctbench.networks.blocks import Conv, conv_blocks, dense_blocks


def _layers(
    convs: Sequence[Conv],
    hidden: Sequence[int],
    input_shape: tuple[int, ...],
    classes: int,
    *,
    batch_norm: bool,
) -> list[nn.Module]:
    """Convolutions, then hidden dense layers, then logits."""
    front, features = conv_blocks(convs, input_shape, batch_norm=batch_norm)
    return front + dense_blocks(math.prod(features), hidden, classes, batch_norm=batch_norm)


def _five_convs(width: int, *, last_stride: int) -> list[Conv]:
    """The convolutions of CNN7: five 3x3, of which the third halves the image and doubles the filters."""
    return [
        Conv(width, 3, 1, 1),
        Conv(width, 3, 1, 1),
        Conv(2 * width, 3, 2, 1),
        Conv(2 * width, 3, 1, 1),
        Conv(2 * width, 3, last_stride, 1),
    ]


@dataclass(frozen=True, kw_only=True)
class CNN3(Architecture):
    """Two convolutions and the logits: 24,426 parameters on MNIST."""

    name: ClassVar[str] = "cnn3"
    width: int = 16
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = [Conv(self.width, 5, 2, 2), Conv(2 * self.width, 4, 2, 1)]
        return _layers(convs, (), input_shape, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class CNN5(Architecture):
    """Three convolutions, a dense layer and the logits: 822,106 parameters on MNIST."""

    name: ClassVar[str] = "cnn5"
    width: int = 16
    hidden: int = 512
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = [Conv(self.width, 3, 1, 1), Conv(self.width, 4, 2, 1), Conv(2 * self.width, 4, 2, 1)]
        return _layers(convs, (self.hidden,), input_shape, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class CNN7(Architecture):
    """Five convolutions, a dense layer and the logits: 17,192,650 parameters on CIFAR-10."""

    name: ClassVar[str] = "cnn7"
    width: int = 64
    hidden: int = 512
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = _five_convs(self.width, last_stride=1)
        return _layers(convs, (self.hidden,), input_shape, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class CNN7Narrow(Architecture):
    """CNN7 with half the filters and 216 dense units."""

    name: ClassVar[str] = "cnn7-narrow"
    width: int = 32
    hidden: int = 216
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = _five_convs(self.width, last_stride=1)
        return _layers(convs, (self.hidden,), input_shape, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class CNN7TinyImageNet(Architecture):
    """CNN7 whose last convolution halves the image once more: 17,290,120 parameters on TinyImageNet."""

    name: ClassVar[str] = "cnn7-tinyimagenet"
    width: int = 64
    hidden: int = 512
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = _five_convs(self.width, last_stride=2)
        return _layers(convs, (self.hidden,), input_shape, classes, batch_norm=self.batch_norm)


@dataclass(frozen=True, kw_only=True)
class ConvSmall(Architecture):
    """Two convolutions, a dense layer and the logits: 166,406 parameters on MNIST."""

    name: ClassVar[str] = "conv-small"
    width: int = 16
    hidden: int = 100
    batch_norm: bool = False

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        convs = [Conv(self.width, 4, 2, 1), Conv(2 * self.width, 4, 2, 1)]
        return _layers(convs, (self.hidden,), input_shape, classes, batch_norm=self.batch_norm)
