"""Normalisation as the first layer of a network.

    z = (x - mean) / std        per channel

It is part of the network, so that every radius, attack and bound is in pixel space, where inputs lie in [0, 1]. The
constants are buffers: they move with the network to its device and dtype, are never trained, and are saved in
checkpoints.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Shift and scale each channel by constants.

    Args:
        mean: one value per channel, in units of the input.
        std: one positive value per channel, in units of the input.
        spatial: the number of dimensions after the channels: 2 for images [B, C, H, W], 0 for [B, C].

    Raises:
        ValueError: the lengths differ or are 0, a value is not finite, or a std is not positive.
    """

    mean: Tensor  # [C, 1, 1] for images
    std: Tensor  # [C, 1, 1] for images

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, spatial: int = 2) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} values and std has {len(std)}; give one of each per channel")
        if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError(
                f"cannot normalise with mean {tuple(mean)} and std {tuple(std)}; "
                "every value must be finite and every std above 0"
            )
        shape = (-1, *[1] * spatial)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()).reshape(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, ...] in pixel space -> the same shape, normalised."""
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """The constants `mean` and `std`."""
        mean, std = ([float(f"{value:.6g}") for value in buffer.flatten()] for buffer in (self.mean, self.std))
        return f"{mean}, {std}"
