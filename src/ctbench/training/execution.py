"""How the formulas of a step are computed: in which precision, and compiled or not.

    bfloat16   torch.autocast around every forward computation of a step: the clean pass, attacks, bounds, the loss.
               Products of matrices and convolutions have inputs and outputs in bfloat16 (8 significant bits). Weights,
               their gradients, the optimiser, statistics of batch norms and sums of losses stay in float32.
    compiled   torch.compile of the call of the method: the same formulas, with other rounding.

Compilation is for devices where it saves time. On a CPU it did not (docs/benchmarks.md): torch breaks the call into
many pieces, e.g. where rules are looked up by the type of an op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss


@dataclass(frozen=True)
class Execution:
    """How a step is computed. The default is the precision of the network, without compilation."""

    bfloat16: bool = False
    compiled: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of forward computations; backward passes run outside of it."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)

    def robust_loss(self, method: Method, net: Graph, batch: Batch) -> RobustLoss:
        """The method's loss."""
        return (_compiled() if self.compiled else _called)(method, net, batch)

    def without(self, reason: str) -> tuple[Execution, str]:
        """The execution to use if this one fails for some reason, and a message about it."""
        if self.compiled:
            return replace(
                self, compiled=False
            ), f"the method cannot be compiled here and runs without compilation ({reason})"
        return replace(self, bfloat16=False), f"bfloat16 does not work here, so training uses float32 ({reason})"


PLAIN = Execution()


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """A context in which torch uses only deterministic algorithms; without `deterministic`, nothing changes."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, converted to float32 if it is in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _called(method: Method, net: Graph, batch: Batch) -> RobustLoss:
    return method(net, batch)


@cache
def _compiled() -> Callable[[Method, Graph, Batch], RobustLoss]:
    return torch.compile(_called)
