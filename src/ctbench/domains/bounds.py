"""Bounds of any torch module, in one call.

lower, upper = bounds(model, x, eps=0.1, domain="crown")
margins = margin_bounds(model, x, y, eps=0.5, norm="l2")      # positive everywhere but at y: proved robust
lower, upper = bounds(model, box=(low, high), domain="alpha-crown", steps=50)
lower, upper = bounds(model, x, eps=0.1, domain=Zonotope(fold=200))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ctbench import memory_budget
from ctbench.domains import Domain
from ctbench.domains import domain as find_domain
from ctbench.domains.linear_form import every_output
from ctbench.graph import Graph, freeze, precision, trace
from ctbench.precision import full_float32
from ctbench.regions import Box, Region, linf_box, threat
from ctbench.specification import check_labels, margin_rows, wrong_classes

KEPT = 8  # numbers that gradients keep for each coefficient of a form at a node, at most
TRIED = (1, 2)  # samples on which it is measured what gradients keep

Eps = float | Tensor
Clip = tuple[float, float] | EllipsisType | None


class LogitBounds(NamedTuple):
    lower: Tensor  # [B, K]
    upper: Tensor  # [B, K]


@full_float32
def bounds(
    model: nn.Module,
    x: Tensor | None = None,
    *,
    eps: Eps | None = None,
    norm: str | float = "linf",
    clip: Clip = ...,
    box: tuple[Tensor, Tensor] | None = None,
    region: Region | None = None,
    domain: str | Domain = "crown",
    memory: int | None = None,
    **options: Any,
) -> LogitBounds:
    """Bounds of the logits over a region of each input: a ball around x, a box, or any other `Region`.

    The network is taken as at test time (running statistics), whatever mode it is in. Gradients reach its
    parameters and x. Bounds are computed in the network's precision. Those of a network in double precision are
    rounded outward, and hold in the exact arithmetic of its weights; others are rounded like everything in them.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [B, *shape]; with eps.
        eps: the radius, in [0, 1] pixel space; for linf also a tensor that broadcasts to one input, as [C, 1, 1].
        norm: "linf", "l2", "l1", "first-coordinate", or math.inf, 2, 1.
        clip: the range of the data, which a ball does not leave; None for no range. By default (0, 1) for the norms.
        box: in place of x and eps, the lower and upper ends of each input, [B, *shape], in any range.
        region: in place of x and eps, a region.
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
        ValueError: an eps, norm, input, region, domain or option that cannot be; says which.
    """
    where = _region(model, x, eps, norm, clip, box, region)
    graph, where = _prepared(model, where)
    like = where.hull.lower
    method = _Method(find_domain(domain, **options), memory, like.device)
    spec = every_output(len(like), graph.classes, like=like)
    both = method.lower_bounds(graph, where, torch.cat([spec, -spec], dim=1))
    return LogitBounds(both[:, : graph.classes], -both[:, graph.classes :])


@full_float32
def margin_bounds(
    model: nn.Module,
    x: Tensor | None,
    y: Tensor,
    *,
    eps: Eps | None = None,
    norm: str | float = "linf",
    clip: Clip = ...,
    box: tuple[Tensor, Tensor] | None = None,
    region: Region | None = None,
    domain: str | Domain = "crown",
    memory: int | None = None,
    **options: Any,
) -> Tensor:
    """Lower bounds of the margins z_y - z_k over the region, [B, K], 0 at k = y. Other arguments as in `bounds`.

    Raises:
        ValueError: also for labels y ([B], integers) that the network has no class for.
    """
    where = _region(model, x, eps, norm, clip, box, region)
    graph, where = _prepared(model, where)
    like = where.hull.lower
    method = _Method(find_domain(domain, **options), memory, like.device)
    check_labels(y, graph.classes)
    if len(y) != len(like):
        raise ValueError(f"there are {len(y)} labels for {len(like)} inputs: give one for each")
    y = y.long()
    rows = method.lower_bounds(graph, where, margin_rows(y, graph.classes, dtype=like.dtype))
    return like.new_zeros(len(y), graph.classes).scatter(1, wrong_classes(y, graph.classes), rows)


def _region(
    model: nn.Module,
    x: Tensor | None,
    eps: Eps | None,
    norm: str | float,
    clip: Clip,
    box: tuple[Tensor, Tensor] | None,
    region: Region | None,
) -> Region:
    """The one region that the arguments name."""
    named = [name for name, value in (("x", x), ("box", box), ("region", region)) if value is not None]
    if len(named) != 1 or (x is None) != (eps is None):
        given = " and ".join(named + ["eps"] * (eps is not None)) or "nothing"
        raise ValueError(f"name the region in one way, x and eps, or box=(lower, upper), or region=; given is {given}")
    if not (norm == "linf" and clip is ...) and x is None:
        raise ValueError("norm and clip belong to x and eps: a box or a region is taken as it is")
    if region is not None:
        return region
    if box is not None:
        if len(box) != 2:
            raise ValueError(f"box has {len(box)} parts: give the lower and the upper ends, [B, *shape] each")
        return Box.checked(*box)
    assert x is not None
    assert eps is not None
    fields = {} if isinstance(clip, EllipsisType) else {"clip": clip}
    radii = eps if isinstance(eps, Tensor) and eps.dim() else None
    balls = threat(norm, float(eps) if radii is None else 0.0, **fields)
    balls.check(x)
    # 0.5 - 0.1 is 0.40000001 in single precision, which would leave out a part of the region of a double network
    x = x.to(precision(model, x).dtype)
    if radii is None:
        return balls.region(x)
    if balls.name != "linf":
        raise ValueError(f"eps has the shape {list(radii.shape)}: only for linf may each feature have its own radius")
    return linf_box(x, radii, balls.clip)


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
        memory = memory_budget.of(device) if memory is None else memory
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
            return memory_budget.halving(compute, count, size)
        if size <= max(TRIED):
            return memory_budget.halving(replace(compute, recomputed=True), count, size)
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
        rest = memory_budget.halving(lambda first, last: compute(start + first, start + last), count - start, size)
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
