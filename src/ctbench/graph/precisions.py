"""Pairs of a thing in two precisions, and a network in eval mode as such a pair of graphs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ctbench.graph.graph import Graph, freeze
from ctbench.graph.plain import own_tensor, plain_network
from ctbench.graph.trace import precision, trace

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
        proof = _frozen(doubled(model), x.to(like.device).double()).rounded_outward()
        return cls(search, proof, like)


def doubled(model: nn.Module) -> nn.Module:
    """A copy of a network in double precision, including tensors that are plain attributes of its modules.

    An RMS norm without an eps has that of the precision of the network.
    """
    try:
        double = copy.deepcopy(model).double()
    except TypeError as error:  # of an attribute such as a lock or an open file
        raise ValueError(f"the network cannot be copied ({error}): remove this attribute of its modules") from None
    own = own_tensor(model)
    for module in double.modules():
        if own is not None and hasattr(nn, "RMSNorm") and isinstance(module, nn.RMSNorm) and module.eps is None:
            module.eps = torch.finfo(own.dtype).eps
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    return double


def _frozen(model: nn.Module, x: Tensor) -> Graph:
    graph, _ = freeze(trace(model, tuple(x.shape[1:])), x)
    return graph.detach()
