"""The inputs that an adversary may choose: one region per sample, and the threat model that makes it.

    Linf(eps, clip=(0, 1)).region(x) = {x' : |x' - x| <= eps, 0 <= x' <= 1}         a Box
    L2(eps, clip=(0, 1)).region(x)   = {x' : ||x' - x||_2 <= eps, 0 <= x' <= 1}     an L2Ball
    L1(eps, clip=(0, 1)).region(x)   = {x' : ||x' - x||_1 <= eps, 0 <= x' <= 1}     an L1Ball
    Segments(eps, directions).region(x) = {x + beta d_j : |beta| <= eps}            a SegmentUnion

    Polytope(box, rows, offsets)                 = {x' in the box : rows x' + offsets <= 0}, of VNN-LIB properties

Attacks and bounds use a region only through a few methods, and do not depend on the norm. Bounds need the support
function, the minimum of a linear form over the region:

    region.minimum(a) = min over x' in the region of <a, x'>

Radii are in pixel space, [0, 1]; normalisation is the first layer of a network.
"""

from ctbench.regions.ball import Ball
from ctbench.regions.base import Region, Threat
from ctbench.regions.box import Box, Linf, linf_box
from ctbench.regions.l1 import L1, L1Ball
from ctbench.regions.l2 import L2, L2Ball
from ctbench.regions.lookup import threat, threats
from ctbench.regions.polytope import Polytope
from ctbench.regions.segments import FirstCoordinate, RandomSegments, Segments, SegmentUnion

__all__ = [
    "L1",
    "L2",
    "Ball",
    "Box",
    "FirstCoordinate",
    "L1Ball",
    "L2Ball",
    "Linf",
    "Polytope",
    "RandomSegments",
    "Region",
    "SegmentUnion",
    "Segments",
    "Threat",
    "linf_box",
    "threat",
    "threats",
]
