"""Pairs of a thing in two precisions, and a network in eval mode as such a pair of graphs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ctbench.graph.graph import Graph, freeze
from ctbench.graph.trace import own_tensor, plain_network, precision, trace

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Twin(Generic[T]):
    """The same thing twice: searches use it in the network's precision, proofs and replays in double precision."""

    search: T
    proof: T


@dataclass(frozen=True, eq=False)
class Precisions(Twin[Graph]):
    """Frozen graphs without gradients; bounds of the one for proofs are rounded outward."""

    like: Tensor  # a zero of the network's precision, on its device

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, x: Tensor) -> Precisions:
        """The graphs of a network of supported layers, in any mode; the network is not changed.

        Args:
            model: the network; its precision is that of `precision(model, x)`.
            x: any input, [1, *shape].

        Raises:
            UnsupportedLayerError: a layer has no op.
            ValueError: the model is not a torch.nn.Module, cannot be copied, or rejects inputs of this shape.
        """
        like, model = precision(model, x), plain_network(model)
        # double precision from the start: constants rounded to single precision first would give another network
        search = _frozen(model, x.to(like))
        proof = _frozen(doubled(model, like.dtype), x.to(like.device).double()).rounded_outward()
        return cls(search, proof, like)


def doubled(model: nn.Module, own: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a network in double precision, including tensors that are plain attributes of its modules.

    An RMS norm without an eps has that of the precision of the network, which is `own` if it has no tensors.
    """
    try:
        double = copy.deepcopy(model).double()
    except TypeError as error:  # of an attribute such as a lock or an open file
        raise ValueError(f"the network cannot be copied ({error}): remove this attribute of its modules") from None
    tensor = own_tensor(model)
    eps = torch.finfo(own if tensor is None else tensor.dtype).eps
    for module in double.modules():
        if hasattr(nn, "RMSNorm") and isinstance(module, nn.RMSNorm) and module.eps is None:
            module.eps = eps
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    return double


def _frozen(model: nn.Module, x: Tensor) -> Graph:
    graph, _ = freeze(trace(model, tuple(x.shape[1:])), x)
    return graph.detach()
