"""The weights of a network: what an initialisation draws, and what L1 sums.

- the weight of each linear and convolutional layer of torch: 1-d, 2-d and 3-d, also transposed, and bilinear layers
- in any other module, e.g. one of your own, each parameter [out, in, ...] whose name ends in "weight", if its rows,
  `weight[0]`, have more than one number

All other parameters are skipped: biases, factors of batch and layer norms, slopes of PReLU, embeddings, and parameters
with other names. A parameter that several modules share is one weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
SKIPPED = (nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)  # their weights may have several axes


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight, and how many values of the input an output is a sum of."""

    values: Tensor
    fan_in: float  # for a transposed convolution with a stride, the mean over the outputs


def weights(model: nn.Module) -> list[Weight]:
    """The weights of a network, in the order of its modules."""
    unique: dict[int, Weight] = {}
    for module in model.modules():
        for weight in _own(module):
            unique.setdefault(id(weight.values), weight)
    return list(unique.values())


def _own(module: nn.Module) -> Iterator[Weight]:
    """The weights that a module holds itself."""
    if isinstance(module, LAYERS):
        yield Weight(module.weight, _fan_in(module))
    elif not isinstance(module, SKIPPED):
        for name, values in module.named_parameters(recurse=False):
            if name.endswith("weight") and values.dim() > 1 and values[0].numel() > 1:
                yield Weight(values, values[0].numel())


def _fan_in(layer: nn.Module) -> float:
    """The fan-in of a layer of torch."""
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        pixels = math.prod(layer.kernel_size) / math.prod(layer.stride)
        return layer.in_channels // layer.groups * pixels
    assert isinstance(layer.weight, Tensor)
    return layer.weight[0].numel()
