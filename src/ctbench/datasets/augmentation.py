"""Random flips and crops of whole batches.

For each pixel of the result, both only select a pixel of the image. So a batch is augmented by computing row and column
indices and gathering once: values stay in the range of the pixels, and edge padding is a clamp of the indices. Zero
padding then sets the pixels outside the image to 0.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Padding = Literal["edge", "zero"]


@dataclass(frozen=True)
class Augmentation:
    """The random transformation of a training batch before the network sees it.

    Args:
        flip: mirror each image left to right with probability 1/2.
        crop_padding: pad each image by this many pixels on every side, and cut it out at a random place.
        crop: the side of the square to cut out; None: the size of the image. Without padding it lies inside the image.
        padding: what the padded pixels show. "edge" repeats the nearest pixel of the image, like the code of CTBench.
            "zero" is black, 0 in [0, 1] pixel space, as the text of that paper says (App. B.1).

    Raises:
        ValueError: `crop_padding` is negative, `crop` is not positive, or `padding` is neither word; when called, if
            `crop` is larger than the image.
    """

    flip: bool = False
    crop_padding: int = 0
    crop: int | None = None
    padding: Padding = "edge"

    def __post_init__(self) -> None:
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding is {self.padding!r}; choose from {', '.join(get_args(Padding))}")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is {self.crop_padding}; give 0 (no crop) or more pixels")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"crop is {self.crop}; give the pixels of a side, or None for the size of the image")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output shape for one input of this shape: [C, H, W], or the shape of a vector if nothing is cut."""
        if self.crop is None:
            return shape
        if len(shape) != 3 or self.crop > min(shape[1:]):
            raise ValueError(
                f"crop is {self.crop}, and inputs have shape {shape}; give a side that fits into images [C, H, W]"
            )
        return (shape[0], self.crop, self.crop)

    def center(self, x: Tensor) -> Tensor:
        """The center crop of images [B, C, H, W], of the same size as the random crops: used at test time."""
        if self.crop is None:
            return x
        _, height, width = self.shape(tuple(x.shape[1:]))
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images x [B, C, H, W]. The result has the dtype and device of x, and its shape unless `crop` is set.

        All random numbers come from `generator` and are drawn on its device: with a generator on the CPU, a run sees
        the same images on every device.
        """
        if not self.flip and not self.crop_padding and self.crop is None:
            return x
        if x.dim() != 4:
            raise ValueError(f"inputs of shape {list(x.shape[1:])} cannot be flipped or cut: give images [C, H, W]")
        batch, channels, height, width = x.shape
        shown = self.shape((channels, height, width))
        rows, columns = (torch.arange(side, device=x.device).expand(batch, side) for side in shown[1:])  # [B, side]
        if self.crop_padding or self.crop is not None:
            rows = self._moved(rows, height, generator)
            columns = self._moved(columns, width, generator)
        if self.flip:
            coins = torch.randint(2, (batch, 1), generator=generator, device=generator.device)
            columns = torch.where(coins.to(x.device) == 1, columns.flip(1), columns)
        nearest = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        source = nearest[0][:, :, None] * width + nearest[1][:, None, :]  # [B, *shown], indices of pixels
        pixels = x.flatten(2).gather(2, source.view(batch, 1, -1).expand(-1, channels, -1)).view(batch, *shown)
        if self.padding == "edge" or not self.crop_padding:
            return pixels
        inside = (rows == nearest[0])[:, :, None] & (columns == nearest[1])[:, None, :]
        return pixels * inside[:, None]

    def _moved(self, numbers: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """The row (or column) indices of a random crop, [B, shown], from those of the image, `numbers`.

        An index in the padding is negative, or at least `side`.
        """
        batch, shown = numbers.shape
        low, high = -self.crop_padding, side - shown + self.crop_padding + 1
        first = torch.randint(low, high, (batch, 1), generator=generator, device=generator.device)
        return numbers + first.to(numbers.device)
