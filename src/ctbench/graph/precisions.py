"""A network at test time as graphs, in its own and in double precision."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from ctbench.graph.graph import Graph, freeze
from ctbench.graph.trace import trace


@dataclass(frozen=True, eq=False)
class Precisions:
    """Frozen graphs without gradients: what is searched in one of them is proved or replayed in the other."""

    net: Graph
    exact: Graph  # in double precision, with bounds that are rounded outward
    like: Tensor  # a zero of the network's precision, on its device

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, x: Tensor) -> Precisions:
        """Of a network of supported layers, whatever mode it is in, which is left as it is.

        Args:
            model: the network; without parameters and buffers it has the precision of x.
            x: any input, [1, *shape].

        Raises:
            UnsupportedLayerError: a layer without an op.
            ValueError: the network is none, or does not take such inputs.
        """
        if not isinstance(model, nn.Module):
            raise ValueError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
        tensors = chain(model.parameters(), model.buffers())
        like = torch.zeros_like(next((t for t in tensors if t.is_floating_point()), x).flatten()[0])
        # frozen in double precision from the start: constants that were rounded first would be those of another network
        net = _frozen(model, x.to(like))
        exact = _frozen(copy.deepcopy(model).double(), x.to(like.device).double()).rounded_outward()
        return cls(net, exact, like)


def _frozen(model: nn.Module, x: Tensor) -> Graph:
    graph, _ = freeze(trace(model, tuple(x.shape[1:])), x)
    return graph.detach()
