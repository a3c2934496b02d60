"""Several processes that train one network together: each computes its share of every batch, e.g. on its own device.

    torchrun --nproc-per-node 4 -m ctbench train RECIPE --device cuda

All hold the same weights and draw the same batches. With w_p the share of process p in the samples of a batch,

    mean      m = sum_p w_p mean_p(x)           of each channel of the input of a batch norm
    variance  v = sum_p w_p mean_p((x - m)^2)   its (biased) variance; gradients flow through both sums
    gradient  g = sum_p w_p grad_p              of the parameters, after the last backward pass and before clipping

are those of the whole batch, and every process takes the same step. The mean is computed first, because a difference of
large squares would lose the variance. Each process computes validation and the statistics of PreciseBN by itself.

The sums are collectives of torch, called directly. DistributedDataParallel reduces gradients during one backward pass
through one call of the module. A step here calls no module, and has several backward passes through parts of the graph,
of which only the last one reaches the weights.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ctbench.graph import Graph
from ctbench.graph.ops import BatchNorm
from ctbench.training.monitoring import Means

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of a batch that one process computes."""

    samples: slice
    weight: float  # its share of the mean over the batch
    batch: int  # the size of the whole batch


@dataclass(frozen=True)
class Processes:
    """The group of processes that train together, and the rank of this process. The default is a single process."""

    rank: int = 0
    count: int = 1

    @property
    def alone(self) -> bool:
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def share(self, batch: int) -> Share:
        """The part of a batch that this process computes. If there are too few samples, each process takes all."""
        if batch < self.count:
            return Share(slice(0, batch), 1 / self.count, batch)
        start, end = (batch * rank // self.count for rank in (self.rank, self.rank + 1))
        return Share(slice(start, end), (end - start) / batch, batch)

    def synchronised(self, graph: Graph, share: Share) -> Graph:
        """The graph with batch norms that use the statistics of the whole batch when it is frozen on a share."""
        if self.alone:
            return graph
        nodes = (
            replace(node, op=SharedBatchNorm(node.op.module, share)) if isinstance(node.op, BatchNorm) else node
            for node in graph.nodes
        )
        again = graph.again
        return replace(
            graph, nodes=tuple(nodes), again=None if again is None else lambda: self.synchronised(again(), share)
        )

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradients of the parameters by their sums over the processes, all in one message."""
        if self.alone:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def read(self, means: Means) -> dict[str, float]:
        """The means over all processes as numbers; a quantity that one process lacks is averaged over the others."""
        mine = means.read()
        if self.alone:
            return mine
        totals, weights = Counter[str](), Counter[str]()
        for numbers, weight in self.gathered((mine, means.weights)):
            totals.update({name: weight[name] * number for name, number in numbers.items()})
            weights.update(weight)
        return {name: total / weights[name] for name, total in totals.items()}

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        values: list[Any] = [value] * self.count
        if not self.alone:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return as soon as every process has called this."""
        if not self.alone:
            dist.barrier()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """A context that the first process leaves before the others enter it, e.g. for a download."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Processes()


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """A context with the group of processes that torchrun has started; without torchrun, with a single process.

    On "cuda" each process uses the device with its local rank, which becomes the default device.

    Raises:
        ValueError: there are more processes on this machine than devices.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    backend, own = "gloo", None
    if device.type == "cuda":
        backend, own = "nccl", torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if own.index >= torch.cuda.device_count():
            raise ValueError(
                f"this is process {own.index + 1} of its machine, which has {torch.cuda.device_count()} devices: start "
                f"as many processes as there are devices"
            )
        torch.cuda.set_device(own)
    dist.init_process_group(backend, device_id=own)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True, eq=False)
class SharedBatchNorm(BatchNorm):
    """A batch norm that gets a share of the batch, and uses the statistics of the whole batch."""

    share: Share

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = self.share.batch * x[0, 0].numel()
        if count < 2:  # then each process has the whole batch
            return super()._batch_statistics(x)
        dims = [0, *range(2, x.dim())]
        mean = self._whole(x.mean(dims, keepdim=True))
        variance = self._whole((x - mean).square().mean(dims))
        mean = mean.flatten()
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        return mean, variance

    def _whole(self, mean: Tensor) -> Tensor:
        """The mean over the batch, from the mean over the share of each process."""
        total: Tensor = _Sum.apply(self.share.weight * mean)  # type: ignore[no-untyped-call]
        return total


class _Sum(torch.autograd.Function):
    """The sum over the processes. A share affects the loss of each process, so its gradient is also such a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _added(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _added(gradient)


def _added(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
