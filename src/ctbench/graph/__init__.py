"""A network as data: ops, graphs, walks forward and backward, and tracing from torch."""

from ctbench.graph.graph import (
    BackwardRule,
    Graph,
    Node,
    backward_steps,
    folded,
    freeze,
    place_of_cut,
    split,
    walk_backward,
    walk_forward,
)
from ctbench.graph.ops import Affine, Elementwise, Lines, Op, UnsupportedLayerError, lower
from ctbench.graph.plain import unwrapped
from ctbench.graph.precisions import Precisions, Twin
from ctbench.graph.trace import precision, trace

__all__ = [
    "Affine",
    "BackwardRule",
    "Elementwise",
    "Graph",
    "Lines",
    "Node",
    "Op",
    "Precisions",
    "Twin",
    "UnsupportedLayerError",
    "backward_steps",
    "folded",
    "freeze",
    "lower",
    "place_of_cut",
    "precision",
    "split",
    "trace",
    "unwrapped",
    "walk_backward",
    "walk_forward",
]
