"""A network as data: ops, graphs, walks forward and backward, and tracing from torch."""

from ctbench.graph.graph import Graph, Node, folded, freeze, fronts, split, walk_backward, walk_forward
from ctbench.graph.ops import Affine, Elementwise, Lines, Op, UnsupportedLayerError, lower
from ctbench.graph.precisions import Precisions
from ctbench.graph.trace import precision, trace

__all__ = [
    "Affine",
    "Elementwise",
    "Graph",
    "Lines",
    "Node",
    "Op",
    "Precisions",
    "UnsupportedLayerError",
    "folded",
    "freeze",
    "fronts",
    "lower",
    "precision",
    "split",
    "trace",
    "walk_backward",
    "walk_forward",
]
