"""The two halves that the architectures here are made of: convolutions, then dense layers.

Every layer has a bias, also where a batch norm follows, and stands in the order layer, batch norm, ReLU.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn


class Conv(NamedTuple):
    """One convolution: how many filters, and their side, stride and zero padding in pixels."""

    filters: int
    kernel: int
    stride: int
    padding: int

    def side(self, side: int) -> int:
        """The side of the output for an input of this side; below 1 where the kernel does not fit."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


def conv_blocks(
    convs: Sequence[Conv], input_shape: tuple[int, ...], *, batch_norm: bool
) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Convolutions, each with its batch norm and ReLU, and the shape [C, H, W] that they put out.

    Raises:
        ValueError: the input is not an image, or is too small for one of the kernels.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"a convolutional network takes images [C, H, W], and was given inputs of shape {input_shape}; "
            "use an mlp, or give the data this shape"
        )
    layers: list[nn.Module] = []
    channels, height, width = input_shape
    for number, conv in enumerate(convs, start=1):
        out = conv.side(height), conv.side(width)
        if min(out) < 1:
            raise ValueError(
                f"convolution {number} has a {conv.kernel}x{conv.kernel} kernel with padding {conv.padding} "
                f"and is given {height}x{width} pixels (of inputs {input_shape}), which it does not fit; "
                "use larger images or a network with fewer strides"
            )
        layers.append(nn.Conv2d(channels, conv.filters, conv.kernel, conv.stride, conv.padding))
        if batch_norm:
            layers.append(nn.BatchNorm2d(conv.filters))
        layers.append(nn.ReLU())
        channels, (height, width) = conv.filters, out
    return layers, (channels, height, width)


def dense_blocks(features: int, hidden: Sequence[int], classes: int, *, batch_norm: bool) -> list[nn.Module]:
    """Flatten, hidden dense layers, each with its batch norm and ReLU, and the dense layer of the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers.append(nn.Linear(features, units))
        if batch_norm:
            layers.append(nn.BatchNorm1d(units))
        layers.append(nn.ReLU())
        features = units
    return [*layers, nn.Linear(features, classes)]
