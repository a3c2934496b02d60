"""Random flips and crops of whole batches.

Both only say which pixel of the image each pixel of the result shows, so a batch is augmented by computing
row and column numbers and gathering once: no value can leave the range of the pixels, and padding by the
edge is a clamp of the numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training batch before the network sees it.

    Args:
        flip: mirror each image left to right with probability 1/2.
        crop_padding: cut each image, at a random place, out of itself padded by this many pixels on every side; the
            padding repeats the edge.
        crop: the side of the square that is cut out; None cuts the image's own size. With no padding it lies inside.

    Raises:
        ValueError: `crop_padding` is negative, or `crop` is not positive; when called, if `crop` is larger than the
            image.
    """

    flip: bool = False
    crop_padding: int = 0
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is {self.crop_padding}; give 0 (no crop) or more pixels")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"crop is {self.crop}; give the pixels of a side, or None for the image's own size")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a result, from that of an input: [C, H, W], or that of a vector if nothing is cut."""
        if self.crop is None:
            return shape
        if len(shape) != 3 or self.crop > min(shape[1:]):
            raise ValueError(
                f"crop is {self.crop}, and inputs have shape {shape}; give a side that fits into images [C, H, W]"
            )
        return (shape[0], self.crop, self.crop)

    def center(self, x: Tensor) -> Tensor:
        """The middle of images [B, C, H, W], as large as what is cut out of them: what a test shows of them."""
        if self.crop is None:
            return x
        _, height, width = self.shape(tuple(x.shape[1:]))
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images x [B, C, H, W]; the result has x's dtype and device, and x's shape but for `crop`.

        All randomness comes from `generator`, drawn on its own device: with a generator on the CPU a run
        sees the same images on every device.
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
        source = rows[:, :, None] * width + columns[:, None, :]  # [B, *shown], numbers of pixels
        return x.flatten(2).gather(2, source.view(batch, 1, -1).expand(-1, channels, -1)).view(batch, *shown)

    def _moved(self, numbers: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """The numbers of rows (or columns) from a random one on, [B, shown], of an image with so many."""
        batch, shown = numbers.shape
        low, high = -self.crop_padding, side - shown + self.crop_padding + 1
        first = torch.randint(low, high, (batch, 1), generator=generator, device=generator.device)
        return (numbers + first.to(numbers.device)).clamp(0, side - 1)
