"""A frozen network at other weights, for methods that evaluate a loss there (SAM, weight smoothing).

    offsets = {key: torch.zeros_like(tensor) for key, tensor in weights(net).items()}
    loss = method(*reweighted(net, batch, offsets))

The weights of a frozen network are its weights and biases, and for each batch norm the scale and the shift computed
from its statistics. The statistics are those of the clean pass at the original weights.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ctbench.graph import Graph
from ctbench.methods.base import Batch


def weights(net: Graph) -> dict[int, Tensor]:
    """The tensors of a frozen network that have a gradient, by `id`: a tensor that layers share appears once."""
    tensors: dict[int, Tensor] = {}
    net.map(lambda tensor: tensors.setdefault(id(tensor), tensor))
    return {key: tensor for key, tensor in tensors.items() if tensor.requires_grad}


def reweighted(net: Graph, batch: Batch, offsets: dict[int, Tensor]) -> tuple[Graph, Batch]:
    """The network with an offset added to each of its `weights`, and the batch with the logits of this network.

    Gradients flow to the original weights.
    """
    changed = {key: tensor + offsets[key] for key, tensor in weights(net).items()}
    net = net.map(lambda tensor: changed.get(id(tensor), tensor))
    return net, replace(batch, logits=net(batch.x))
