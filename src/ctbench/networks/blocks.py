"""The pieces that the architectures here are made of: convolutions, residual blocks and dense layers.

Every layer has a bias, also where a batch norm follows, and stands in the order layer, batch norm, ReLU unless its
architecture says otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

Image = tuple[int, int, int]  # [C, H, W]


class Conv(NamedTuple):
    """One convolution: how many filters, and their side, stride and zero padding in pixels."""

    filters: int
    kernel: int
    stride: int
    padding: int

    def shape(self, image: Image) -> Image:
        """The shape that comes out for an image of this shape.

        Raises:
            ValueError: the kernel is larger than the padded image.
        """
        _, height, width = image
        rows, columns = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (height, width))
        if min(rows, columns) < 1:
            raise ValueError(
                f"a convolution has a {self.kernel}x{self.kernel} kernel with padding {self.padding} and is given "
                f"{height}x{width} pixels, which it does not fit; use larger images or a network with fewer strides"
            )
        return self.filters, rows, columns

    def layers(self, image: Image, *, batch_norm: bool) -> list[nn.Module]:
        """The convolution for images of this shape, and its batch norm."""
        channels, _, _ = image
        conv = nn.Conv2d(channels, self.filters, self.kernel, self.stride, self.padding)
        return [conv, nn.BatchNorm2d(self.filters)] if batch_norm else [conv]


class Residual(nn.Module):
    """x -> main(x) + shortcut(x)."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> the sum of what the two paths make of it; both must put out the same shape."""
        main: Tensor = self.main(x)
        shortcut: Tensor = self.shortcut(x)
        return main + shortcut


def image_shape(input_shape: tuple[int, ...]) -> Image:
    """The same shape, as one of images.

    Raises:
        ValueError: it is not [C, H, W].
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"a convolutional network takes images [C, H, W], and was given inputs of shape {input_shape}; "
            "use an mlp, or give the data this shape"
        )
    channels, height, width = input_shape
    return channels, height, width


def conv_blocks(convs: Sequence[Conv], image: Image, *, batch_norm: bool) -> tuple[list[nn.Module], Image]:
    """Convolutions, each with its batch norm and ReLU, and the shape that they put out.

    Raises:
        ValueError: the image is too small for one of the kernels.
    """
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [*conv.layers(image, batch_norm=batch_norm), nn.ReLU()]
        image = conv.shape(image)
    return layers, image


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
