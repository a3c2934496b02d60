"""The blueprint of a network: its architecture, and the shape and normalisation of its data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ctbench.datasets import Data
from ctbench.networks import Architecture, Given
from ctbench.training.initialization import build


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """The metadata of a weights file, so that the network can be built from the file alone."""

    network: Architecture
    input_shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...] | None = None  # of the Normalize layer; None: no such layer
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, network: Architecture, data: Data, *, normalize: bool = True) -> Blueprint:
        """The blueprint of an architecture for a data set; `normalize`: with the normalisation of the data set.

        A module of the user's own normalises by itself.
        """
        own = isinstance(network, Given) or not normalize
        mean, std = (None, None) if own else (data.mean, data.std)
        return cls(network=network, input_shape=data.input_shape, classes=data.classes, mean=mean, std=std)

    def build(self, *, initialization: str = "kaiming", seed: int = 0) -> nn.Module:
        """A network with new weights."""
        return build(
            lambda: self.network.build(self.input_shape, self.classes, mean=self.mean, std=self.std),
            initialization=initialization,
            seed=seed,
        )
