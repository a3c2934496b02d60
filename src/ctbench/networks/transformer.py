"""Networks that normalise each sample: a vision transformer, and dense layers with layer norm."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctbench.networks.base import Architecture


class Patches(nn.Module):
    """An image as rows, one for each patch: [B, C, H, W] to [B, patches, width], with an offset for each place."""

    def __init__(self, channels: int, side: int, width: int, count: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, side, side)
        self.places = nn.Parameter(0.02 * torch.randn(count, width))

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.embed(x).flatten(2).transpose(1, 2) + self.places
        return rows


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), and then the same with dense layers: a block of a transformer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm1(x)
        x = x + self.attention(rows, rows, rows, need_weights=False)[0]
        result: Tensor = x + self.dense(self.norm2(x))
        return result


class MeanRow(nn.Module):
    """The mean of the rows of each sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@dataclass(frozen=True, kw_only=True)
class ViT(Architecture):
    """A vision transformer (Dosovitskiy et al. 2021), whose logits are made of the mean over all patches."""

    name: ClassVar[str] = "vit"
    patch: int = 4
    width: int = 16
    depth: int = 1
    heads: int = 2
    hidden: int = 32

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order.

        Raises:
            ValueError: the input is not an image, the patches do not fill it, or the heads do not divide the width.
        """
        if len(input_shape) != 3 or any(side % self.patch for side in input_shape[1:]):
            raise ValueError(
                f"{self.name}: patches of {self.patch}x{self.patch} do not fill an input of shape {input_shape}; give "
                f"images [C, H, W] whose sides are multiples of the patch"
            )
        if self.width % self.heads:
            raise ValueError(f"{self.name}: {self.heads} heads do not divide the width {self.width}; give a multiple")
        channels, height, width = input_shape
        count = (height // self.patch) * (width // self.patch)
        return [
            Patches(channels, self.patch, self.width, count),
            *(EncoderBlock(self.width, self.heads, self.hidden) for _ in range(self.depth)),
            MeanRow(),
            nn.Linear(self.width, classes),
        ]


@dataclass(frozen=True, kw_only=True)
class LayerNormMLP(Architecture):
    """Dense layers of `hidden` units each, with layer norm before each ReLU, for inputs of any shape."""

    name: ClassVar[str] = "layernorm-mlp"
    hidden: tuple[int, ...] = (100, 100)

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        sizes = (math.prod(input_shape), *self.hidden)
        blocks = ([nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()] for before, after in pairwise(sizes))
        return [nn.Flatten(), *(layer for block in blocks for layer in block), nn.Linear(sizes[-1], classes)]
