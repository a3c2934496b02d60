"""The building blocks of the architectures: convolutions, residual blocks and dense layers.

Every layer has a bias, even if a batch norm follows. The order is layer, batch norm, ReLU, unless the architecture says
otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

Image = tuple[int, int, int]  # [C, H, W]


class Conv(NamedTuple):
    """One convolution: the number of filters, and their side, stride and zero padding in pixels."""

    filters: int
    kernel: int
    stride: int
    padding: int

    def shape(self, image: Image) -> Image:
        """The output shape for an image of this shape.

        Raises:
            ValueError: the kernel is larger than the padded image.
        """
        _, height, width = image
        rows, columns = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (height, width))
        if min(rows, columns) < 1:
            raise ValueError(
                f"a convolution with a {self.kernel}x{self.kernel} kernel and padding {self.padding} does not fit into "
                f"its input of {height}x{width} pixels; use larger images or a network with fewer strides"
            )
        return self.filters, rows, columns

    def layers(self, image: Image, *, batch_norm: bool) -> list[nn.Module]:
        """The convolution for images of this shape, and its batch norm if there is one."""
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
        """x [B, C, H, W] -> the sum of the outputs of the two paths, which must have the same shape."""
        main: Tensor = self.main(x)
        shortcut: Tensor = self.shortcut(x)
        return main + shortcut


def image_shape(input_shape: tuple[int, ...]) -> Image:
    """The input shape as the shape of an image.

    Raises:
        ValueError: the input shape is not [C, H, W].
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"a convolutional network takes images [C, H, W], but the inputs have shape {input_shape}; "
            "use an mlp, or reshape the data"
        )
    channels, height, width = input_shape
    return channels, height, width


def conv_blocks(convs: Sequence[Conv], image: Image, *, batch_norm: bool) -> tuple[list[nn.Module], Image]:
    """Convolutions, each with its batch norm and ReLU, and their output shape.

    Raises:
        ValueError: the image is too small for one of the kernels.
    """
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [*conv.layers(image, batch_norm=batch_norm), nn.ReLU()]
        image = conv.shape(image)
    return layers, image


def dense_blocks(features: int, hidden: Sequence[int], classes: int, *, batch_norm: bool) -> list[nn.Module]:
    """Flatten, hidden dense layers, each with its batch norm and ReLU, and the dense layer that outputs the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers.append(nn.Linear(features, units))
        if batch_norm:
            layers.append(nn.BatchNorm1d(units))
        layers.append(nn.ReLU())
        features = units
    return [*layers, nn.Linear(features, classes)]
