"""Several networks as one: a query of VNN-LIB 2.0 may relate the outputs of two networks, or of one for two inputs.

f(x_1), g(x_2)   as   (x_1, x_2) -> (f(x_1), g(x_2))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ctbench.graph.ops import Shape
from ctbench.onnx import OnnxNetwork
from ctbench.vnnlib import Network


class Joint(nn.Module):
    """Networks side by side: a vector of all their inputs to a vector of all their outputs.

    Args:
        networks: in the order in which the query declares them; one may stand at several places.
        shapes: the shape of an input of each, without the batch.
    """

    def __init__(self, networks: Sequence[nn.Module], shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.shapes = [tuple(shape) for shape in shapes]

    def forward(self, x: Tensor) -> Tensor:
        parts, start = [], 0
        for network, shape in zip(self.networks, self.shapes, strict=True):
            size = math.prod(shape)
            parts.append(network(x[:, start : start + size].reshape(-1, *shape)).flatten(1))
            start += size
        return torch.cat(parts, dim=1)


def joint(networks: Mapping[str, nn.Module], declared: Sequence[Network]) -> nn.Module:
    """The network of a query that declares several, e.g. {"f": model, "g": other}.

    A network that is `equal-to` another one is that network, and has no entry of its own.

    Raises:
        ValueError: a network that the query declares is missing, or there are others; or sizes differ from the declared
            ones.
    """
    own = [network.name for network in declared if network.equal_to is None]
    if set(networks) != set(own):
        raise ValueError(f"the query declares the networks {', '.join(own) or 'none'}: give these, not {[*networks]}")
    modules, shapes = dict[str, nn.Module](), list[Shape]()
    for network in declared:
        module = modules[network.name] = (
            networks[network.name] if network.equal_to is None else modules[network.equal_to]
        )
        first = network.inputs[0].shape
        shape: Shape = first[1:] if len(first) > 1 and first[0] == 1 else first or (1,)
        if len(network.inputs) > 1:
            shape = (sum(tensor.size for tensor in network.inputs),)
        if isinstance(module, OnnxNetwork):
            shape = module.input_shape
        size = sum(tensor.size for tensor in network.inputs)
        if math.prod(shape) != size:
            raise ValueError(
                f"the query declares {size} inputs of {network.name}, but its network takes inputs of shape {shape}"
            )
        shapes.append(shape)
    return Joint([*modules.values()], shapes)


def joint_replay(
    computations: Sequence[Callable[[Tensor], Tensor]], sizes: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Other implementations of the networks, side by side: [B, n] to [B, K]."""

    def compute(x: Tensor) -> Tensor:
        parts = x.flatten(1).split(list(sizes), dim=1)
        return torch.cat([compute(part) for compute, part in zip(computations, parts, strict=True)], dim=1)

    return compute
