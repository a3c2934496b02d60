"""The wide residual network of certified training on TinyImageNet.

    y = conv(relu(norm(conv(relu(norm(x)))))) + shortcut(x)        one block, norm before activation before convolution

WideResNet is the network that Xu et al. ("Automatic perturbation analysis for scalable certified robustness and
beyond", NeurIPS 2020) train on 56x56 crops of TinyImageNet, based on Zagoruyko & Komodakis ("Wide residual networks",
BMVC 2016). It follows the code that the authors published (auto_LiRPA):

- a 3x3 convolution with 16 filters, without batch norm or ReLU;
- three blocks with 16 k, 32 k and 64 k filters, k the widen factor. Both convolutions are 3x3. The second one and the
  1x1 convolution of the shortcut have strides 1, 2 and 2. The shortcut takes the block's input without batch norm;
- a batch norm and a ReLU, the means of windows of 7x7 (2x2 windows for 56x56 images), and the logits.

The windows do not overlap. Rows and columns that do not fill a window are ignored. If the side of an image has fewer
than 7 pixels at this point, the window covers the whole side.

    WideResNet().build((3, 56, 56), 200)
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ctbench.networks.base import Architecture
from ctbench.networks.blocks import Conv, Image, Residual, dense_blocks, image_shape

STEM = Conv(16, 3, 1, 1)
WINDOW = 7


@dataclass(frozen=True, kw_only=True)
class WideResNet(Architecture):
    """Three wide residual blocks and means of the image: 7,944,520 parameters on 56x56 crops of TinyImageNet."""

    name: ClassVar[str] = "wide-resnet"
    widen_factor: int = 10
    batch_norm: bool = True

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        image = image_shape(input_shape)
        layers = STEM.layers(image, batch_norm=False)
        image = STEM.shape(image)
        for filters, stride in ((16, 1), (32, 2), (64, 2)):
            out = Conv(filters * self.widen_factor, 3, stride, 1)
            layers.append(_block(out, image, batch_norm=self.batch_norm))
            image = out.shape(image)
        channels, height, width = image
        window = min(WINDOW, height), min(WINDOW, width)
        features = channels * (height // window[0]) * (width // window[1])
        layers += [*_activation(channels, batch_norm=self.batch_norm), nn.AvgPool2d(window)]
        return layers + dense_blocks(features, (), classes, batch_norm=False)


def _block(out: Conv, image: Image, *, batch_norm: bool) -> Residual:
    """A block for images of this shape; `out` is its last convolution."""
    first, shortcut = out._replace(stride=1), out._replace(kernel=1, padding=0)
    main = [
        *_activation(image[0], batch_norm=batch_norm),
        *first.layers(image, batch_norm=False),
        *_activation(out.filters, batch_norm=batch_norm),
        *out.layers(first.shape(image), batch_norm=False),
    ]
    return Residual(nn.Sequential(*main), nn.Sequential(*shortcut.layers(image, batch_norm=False)))


def _activation(channels: int, *, batch_norm: bool) -> list[nn.Module]:
    """A batch norm if there is one, and a ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
