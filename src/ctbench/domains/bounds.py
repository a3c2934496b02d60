"""Bounds of any torch module, in one call.

lower, upper = bounds(model, x, eps=0.1, domain="crown")
margins = margin_bounds(model, x, y, L2(0.5))      # all positive, except the 0 at y: proved robust
lower, upper = bounds(model, Box(low, high), domain="alpha-crown", steps=50)
lower, upper = bounds(model, x, eps=0.1, domain=Zonotope(fold=200))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ctbench import budget
from ctbench.domains import Domain
from ctbench.domains import domain as find_domain
from ctbench.domains.linear_form import every_output
from ctbench.graph import Graph, freeze, precision, trace
from ctbench.precision import full_float32
from ctbench.regions import Box, Region, Threat
from ctbench.regions.box import Radii
from ctbench.regions.lookup import threat_or_linf
from ctbench.specification import check_labels, margin_rows, wrong_classes

KEPT = 8  # numbers that gradients keep for each coefficient of a form at a node, at most
TRIED = (1, 2)  # samples on which it is measured what gradients keep


class LogitBounds(NamedTuple):
    lower: Tensor  # [B, K]
    upper: Tensor  # [B, K]


@full_float32
def bounds(
    model: nn.Module,
    x: Tensor | Region,
    threat: Threat | None = None,
    *,
    eps: Radii | None = None,
    domain: str | Domain = "crown",
    memory: int | None = None,
    **options: Any,
) -> LogitBounds:
    """Bounds of the logits over a region of each input: that of a threat model around x, or any other `Region`.

    The network is taken as at test time (running statistics), whatever mode it is in. Gradients reach its
    parameters and x. Bounds are computed in the network's precision. Those of a network in double precision are
    rounded outward, and hold in the exact arithmetic of its weights; others are rounded like everything in them.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range of the threat model, [B, *shape]; or, without a threat model, their regions, e.g.
            Box(lower, upper) with corners [B, *shape], in any range.
        threat: what may be done to x, e.g. Linf(8 / 255), L2(0.5, clip=None).
        eps: the short form of threat=Linf(eps), in [0, 1] pixel space; also an array that broadcasts to one input, e.g.
            [C, 1, 1].
        domain: a `ctbench.domains.Domain`, e.g. Zonotope(fold=200), or the name of one: "interval", "zonotope",
            "crown-ibp", "crown", "alpha-crown", "coap", or that of a domain of your own.
        memory: bytes that the bounds may take at once, about: large batches are cut, and parts are halved where there
            is no memory left. None is 256 MiB on a CPU, and a share of the free memory of another device. Where
            gradients may be wanted (the network's parameters require them, as they do by default) and would need more,
            only one part at a time keeps what they need: it is computed again in the backward pass, once. Under
            torch.no_grad() nothing is kept.
        options: fields of the domain that a name stands for, e.g. steps=50 or slope=relaxations.parallel.

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: an eps, threat model, input, region, domain or option that cannot be; says which.
    """
    graph, region = _prepared(model, _region(model, x, threat, eps))
    like = region.hull.lower
    method = _Method(find_domain(domain, **options), memory, like.device)
    spec = every_output(len(like), graph.classes, like=like)
    both = method.lower_bounds(graph, region, torch.cat([spec, -spec], dim=1))
    return LogitBounds(both[:, : graph.classes], -both[:, graph.classes :])


@full_float32
def margin_bounds(
    model: nn.Module,
    x: Tensor | Region,
    y: Tensor,
    threat: Threat | None = None,
    *,
    eps: Radii | None = None,
    domain: str | Domain = "crown",
    memory: int | None = None,
    **options: Any,
) -> Tensor:
    """Lower bounds of the margins z_y - z_k over the region, [B, K], 0 at k = y. Other arguments as in `bounds`.

    Raises:
        ValueError: also for labels y ([B], integers) that the network has no class for.
    """
    graph, region = _prepared(model, _region(model, x, threat, eps))
    like = region.hull.lower
    method = _Method(find_domain(domain, **options), memory, like.device)
    check_labels(y, graph.classes)
    if len(y) != len(like):
        raise ValueError(f"there are {len(y)} labels for {len(like)} inputs: give one for each")
    y = y.long()
    rows = method.lower_bounds(graph, region, margin_rows(y, graph.classes, dtype=like.dtype))
    return like.new_zeros(len(y), graph.classes).scatter(1, wrong_classes(y, graph.classes), rows)


def _region(model: nn.Module, x: Tensor | Region, threat: Threat | None, eps: Radii | None) -> Region:
    """The region that the arguments name."""
    if isinstance(x, Region):
        if threat is not None or eps is not None:
            raise ValueError("a region is taken as it is: leave out the threat model and eps, or give inputs x")
        return Box.checked(x.lower, x.upper) if isinstance(x, Box) else x
    threat = threat_or_linf(threat, eps)
    threat.check(x)
    # 0.5 - 0.1 is 0.40000001 in single precision, which would leave out a part of the region of a double network
    return threat.region(x.to(precision(model, x).dtype))


def _prepared(model: nn.Module, region: Region) -> tuple[Graph, Region]:
    """The frozen graph, and the region in its precision."""
    center = region.hull.center
    if center.dim() < 2:
        raise ValueError(f"the inputs have the shape {list(center.shape)}: give a batch, [B, *shape]")
    region = region.to(precision(model, center).dtype)
    graph = trace(model, tuple(center.shape[1:]))
    frozen = freeze(graph, region.hull.center)[0]
    return frozen.rounded_outward(region.hull.lower.dtype == torch.float64), region


class _Method:
    """A domain that cuts batches into parts which fit the memory."""

    def __init__(self, domain: Domain, memory: int | None, device: torch.device) -> None:
        memory = budget.of(device) if memory is None else memory
        if not isinstance(memory, int) or memory <= 0:
            raise ValueError(f"memory is {memory!r}: give a number of bytes, e.g. 2**30")
        self.domain, self.memory = domain, memory

    def lower_bounds(self, graph: Graph, region: Region, spec: Tensor) -> Tensor:
        if not len(spec):
            return spec.new_zeros(spec.shape[:2])
        size = max(1, self.memory // (self.domain.footprint(graph, spec.shape[1]) * spec.element_size()))
        found = self._parts(_Part(self, graph, region, spec), len(spec), size)
        bound = found[0] if len(found) == 1 else torch.cat(found)
        return torch.where(bound == torch.inf, torch.nan, bound)  # an overflow, which proves nothing

    def _parts(self, compute: _Part, count: int, size: int) -> list[Tensor]:
        """The bounds of all samples, in parts of this size at most."""
        graph, spec = compute.graph, compute.spec
        numbers = sum(math.prod(node.shape) for node in graph.nodes)
        most = KEPT * (spec.shape[1] + 2 * numbers) * numbers * spec.element_size()
        if not torch.is_grad_enabled() or count * most <= self.memory or count <= sum(TRIED):
            return budget.halving(compute, count, size)
        if size <= max(TRIED):
            return budget.halving(replace(compute, recomputed=True), count, size)
        # how much gradients keep depends on the domain and its options, so it is measured, on a few samples
        done, kept, start = list[Tensor](), list[int](), 0
        for few in TRIED:
            with _measured() as measure:
                done.append(compute(start, start + few))
            kept.append(measure())
            start += few
        each = (kept[1] - kept[0]) // (TRIED[1] - TRIED[0])
        if (count - start) * each > self.memory:
            compute, size = replace(compute, recomputed=True), max(1, min(size, self.memory // each))
        rest = budget.halving(lambda first, last: compute(start + first, start + last), count - start, size)
        return done + rest


@dataclass(frozen=True, eq=False)
class _Part:
    """The bounds of some samples, from one place to another."""

    method: _Method
    graph: Graph
    region: Region
    spec: Tensor
    recomputed: bool = False  # whether what gradients need is computed again in the backward pass

    def __call__(self, start: int, stop: int) -> Tensor:
        if not self.recomputed:
            return self._bounds(start, stop)
        # checkpoints repeat the draws of torch's own generators alone
        generator: torch.Generator | None = getattr(self.method.domain, "generator", None)
        state = Tensor() if generator is None else generator.get_state()
        first = [True]

        def bounds() -> Tensor:
            if first or generator is None:
                first.clear()
                return self._bounds(start, stop)
            now = generator.get_state()
            generator.set_state(state)
            try:
                return self._bounds(start, stop)
            finally:
                generator.set_state(now)

        return checkpoint(full_float32(bounds), use_reentrant=False)  # type: ignore[no-any-return]

    def _bounds(self, start: int, stop: int) -> Tensor:
        region, spec = self.region, self.spec
        if (start, stop) != (0, len(spec)):
            samples = torch.arange(start, stop, device=spec.device)
            region, spec = region.take(samples), spec[samples]
        return self.method.domain.lower_bounds(self.graph, region, spec, memory=self.method.memory)


@contextmanager
def _measured() -> Iterator[Callable[[], int]]:
    """A function that gives the bytes that were kept for gradients since, each storage counted once."""
    storages = dict[int, int]()

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(storages.values())
