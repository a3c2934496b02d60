"""Averages over a run: of the weights (SWA), and of the statistics of batch norms (PreciseBN).

SWA: Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization"; the plain average of the
weights after every few steps, starting with a given epoch.

PreciseBN: the running statistics of a batch norm lag behind the weights. For testing, they are recomputed over the
training set, from the mean and the variance of every batch, while each layer is normalised by the statistics of the
batch. With n_b values per channel in batch b, their mean m_b and their unbiased variance v_b:

    mean:    m = average of m_b,          v = average of v_b, with the same weight for every batch
    pooled:  m = sum_b n_b m_b / sum n_b, v = the unbiased variance of all values together
                                          (Wu and Johnson 2021, "Rethinking 'batch' in BatchNorm", section 3)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True, kw_only=True)
class SWA:
    """The average of the weights after every `every`-th optimisation step, counted from the start of epoch `start`."""

    start: float
    every: int = 10

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start is {self.start}: it must be an epoch >= 0")
        if self.every < 1:
            raise ValueError(f"every is {self.every}: it must be a number of steps >= 1")

    def taken(self, done: int, steps_per_epoch: int) -> int:
        """The number of averaged weights after `done` steps of the run."""
        return max(0, done - round(self.start * steps_per_epoch)) // self.every


@torch.no_grad()
def averaged(averages: dict[str, Tensor], model: nn.Module, count: int) -> dict[str, Tensor]:
    """The average of `count` values of each parameter: `averages` of the first ones, and the network has the last."""
    if count == 1:
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return {name: torch.lerp(averages[name], parameter, 1 / count) for name, parameter in model.named_parameters()}


@torch.no_grad()
def precise_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], variance: Literal["mean", "pooled"] = "mean"
) -> None:
    """Replace the running statistics of every batch norm by the statistics of these batches; weights do not change."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    pools = [Pool() for _ in norms]
    hooks = [n.register_forward_pre_hook(p.see) for n, p in zip(norms, pools, strict=True) if variance == "pooled"]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # in torch, this is the plain average over all batches
    model.train()
    try:
        for x in batches:
            model(x)
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for hook in hooks:
            hook.remove()
    if variance == "pooled":
        for norm, pool in zip(norms, pools, strict=True):
            pool.write(norm)


class Pool:
    """The mean and the unbiased variance per channel of all inputs of a layer, in double precision."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, Tensor, Tensor]] = []  # values per channel, their mean and their biased variance

    def see(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs  # [B, C, ...]
        variance, mean = torch.var_mean(x.transpose(0, 1).flatten(1).double(), dim=1, correction=0)
        self.batches.append((x.numel() // x.shape[1], mean, variance))

    def write(self, norm: _BatchNorm) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        count = sum(n for n, _, _ in self.batches)
        mean = torch.stack([n * m for n, m, _ in self.batches]).sum(0) / count
        squares = torch.stack([n * (v + (m - mean).square()) for n, m, v in self.batches]).sum(0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares / (count - 1))
