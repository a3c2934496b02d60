"""Fully connected networks."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ctbench.networks.base import Architecture
from ctbench.networks.blocks import dense_blocks


@dataclass(frozen=True, kw_only=True)
class MLP(Architecture):
    """Dense layers of `hidden` units each, for inputs of any shape."""

    name: ClassVar[str] = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    batch_norm: bool = False

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order."""
        return dense_blocks(math.prod(input_shape), self.hidden, classes, batch_norm=self.batch_norm)
