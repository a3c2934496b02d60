"""The worst point that an attack finds, for methods that train on it."""

from __future__ import annotations

from torch import Tensor

from ctbench.attacks import Attack
from ctbench.graph import Graph
from ctbench.methods.base import Batch
from ctbench.regions import Region
from ctbench.specification import cross_entropy_at


def worst_point(attack: Attack, net: Graph, batch: Batch, region: Region | None = None) -> Tensor:
    """The point with the largest cross-entropy that the attack finds in the batch's region or in `region`, [B, *shape].

    No gradient flows through it.
    """
    objective = cross_entropy_at(net.detach(), batch.y)
    return attack(objective, batch.region if region is None else region, batch.x, batch.generator)
