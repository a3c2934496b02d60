"""Do the perturbations point along the signal, the shortest way to the decision boundary? Two measures of alignment.

    alignment = mean over samples of sup over delta in B of <s, delta> / (||s|| ||delta||)     of a perturbation set B
    cosine    = mean over samples of <s, delta> / (||s|| ||delta||)                            of perturbations found

The first is from "How robust accuracy suffers from certified training with convex relaxations" (De Bartolomeis et al.,
section 3.2). It distinguishes sets of segments, for which it is

    mean of max_j |<s, d_j>| / (||s|| ||d_j||)

Without a data range, a ball of any norm contains a small multiple of every s: its alignment is 1. "Certified defences
can hurt generalisation" plots the second over the epochs of training (De Bartolomeis et al., Fig. 5b).
"""

from __future__ import annotations

from torch import Tensor

from ctbench.precision import full_float32
from ctbench.regions import Region, SegmentUnion


@full_float32
def alignment(region: Region, directions: Tensor) -> float:
    """The alignment of a set of segments with the signal.

    Args:
        region: segments of a radius above 0, for B samples.
        directions: the signal s of each sample, [B, *shape], not 0.

    Raises:
        ValueError: the region does not consist of segments, or is one point; or a direction is 0 or has a wrong shape.
    """
    if not isinstance(region, SegmentUnion) or region.radius == 0:
        kind = "one point" if isinstance(region, SegmentUnion) else f"a {type(region).__name__}"
        raise ValueError(
            f"the region is {kind}: give segments of a radius above 0; a ball without a data range has alignment 1"
        )
    signal = _checked(directions, region.center)
    segments = region.directions.double().flatten(1)
    cosines = (signal @ segments.T).abs() / (signal.norm(dim=1, keepdim=True) * segments.norm(dim=1))
    return float(cosines.amax(1).mean())


@full_float32
def cosine(perturbations: Tensor, directions: Tensor) -> float:
    """The mean cosine between perturbations and the signal. Perturbations of 0 are ignored; NaN if all are 0.

    Args:
        perturbations: the attacked inputs minus the clean ones, [B, *shape].
        directions: the signal s of each sample, [B, *shape], not 0.

    Raises:
        ValueError: a direction is 0 or has a wrong shape.
    """
    signal, moved = _checked(directions, perturbations), perturbations.double().flatten(1)
    cosines = (signal * moved).sum(1) / (signal.norm(dim=1) * moved.norm(dim=1))
    return float(cosines[moved.any(1)].mean())


def _checked(directions: Tensor, like: Tensor) -> Tensor:
    """The directions, [B, n] in double precision; ValueError unless each sample has one and all are nonzero."""
    if directions.shape != like.shape:
        raise ValueError(
            f"the directions have shape {list(directions.shape)} but the inputs {list(like.shape)}: give one per sample"
        )
    flat = directions.double().flatten(1)
    zero = (~flat.any(1)).nonzero().flatten().tolist()
    if zero:
        raise ValueError(f"the directions of samples {zero} are 0: the signal needs a direction, leave them out")
    return flat
