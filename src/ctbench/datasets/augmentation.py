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
        crop_padding: cut each image, at its own size and a random place, out of itself padded by this many
            pixels on every side; the padding repeats the edge.

    Raises:
        ValueError: `crop_padding` is negative.
    """

    flip: bool = False
    crop_padding: int = 0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is {self.crop_padding}; give 0 (no crop) or more pixels")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images x [B, C, H, W]; the result has x's shape, dtype and device.

        All randomness comes from `generator`, drawn on its own device: with a generator on the CPU a run
        sees the same images on every device.
        """
        if not self.flip and not self.crop_padding:
            return x
        batch, channels, height, width = x.shape
        rows = torch.arange(height, device=x.device).expand(batch, height)  # [B, H]
        columns = torch.arange(width, device=x.device).expand(batch, width)  # [B, W]
        if self.crop_padding:
            low, high = -self.crop_padding, self.crop_padding + 1
            drawn = torch.randint(low, high, (2, batch, 1), generator=generator, device=generator.device)
            down, right = drawn.to(x.device)
            rows = (rows + down).clamp(0, height - 1)
            columns = (columns + right).clamp(0, width - 1)
        if self.flip:
            coins = torch.randint(2, (batch, 1), generator=generator, device=generator.device)
            columns = torch.where(coins.to(x.device) == 1, columns.flip(1), columns)
        source = rows[:, :, None] * width + columns[:, None, :]  # [B, H, W], numbers of pixels
        return x.flatten(2).gather(2, source.view(batch, 1, -1).expand(-1, channels, -1)).view_as(x)
