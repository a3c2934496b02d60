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

from ctbench import memory_budget
from ctbench.domains import Domain
from ctbench.domains import domain as find_domain
from ctbench.domains.linear_form import every_output
from ctbench.graph import Graph, freeze, precision, trace
from ctbench.precision import full_float32
from ctbench.regions import Box, Region, Threat
from ctbench.regions.box import Radii
from ctbench.regions.lookup import threat_or_linf
from ctbench.specification import check_labels, margin_rows, wrong_classes

KEPT = 8  # gradients keep at most this many numbers per coefficient of a form at a node
TRIED = (1, 2)  # the numbers of samples for which the memory of gradients is measured


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

    The network is bounded in eval mode (running statistics), in any mode. Gradients reach its parameters and x. Bounds
    are computed in the precision of the network. Those of a network in double precision are rounded outward, and hold
    in the exact arithmetic of its weights. In single precision they have ordinary rounding errors. An infinite
    bound says nothing: a value may overflow, or may not be defined, e.g. a logarithm of what may be negative.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range of the threat model, [B, *shape]; or, without a threat model, their regions, e.g.
            Box(lower, upper) with corners [B, *shape], in any range.
        threat: what may be done to x, e.g. Linf(8 / 255), L2(0.5, clip=None).
        eps: the short form of threat=Linf(eps), in [0, 1] pixel space; also an array that broadcasts to one input, e.g.
            [C, 1, 1].
        domain: a `ctbench.domains.Domain`, e.g. Zonotope(fold=200), or the name of one: "interval", "zonotope",
            "crown-ibp", "crown", "alpha-crown", "coap", or the name of your own domain.
        memory: the number of bytes that the bounds may take at once, approximately. Large batches are cut into parts,
            and a part is halved if memory runs out. None is 256 MiB on a CPU, and a share of the free memory on another
            device. If gradients are enabled (parameters require them by default) and would need more memory, only one
            part at a time keeps tensors for them: each part is computed once more in the backward pass. Under
            torch.no_grad() nothing is kept.
        options: fields of the domain with this name, e.g. steps=50 or slope=relaxations.parallel.

    Raises:
        UnsupportedLayerError: a layer has no op; the message says which layer and what to register.
        ValueError: an eps, threat model, input, region, domain or option is invalid; the message says which.
    """
    graph, region = _prepared(model, _region(model, x, threat, eps))
    like = region.hull.lower
    method = _Method(_domain(domain, options), memory, like.device)
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
    """Lower bounds of the margins z_y - z_k over the region, [B, K], 0 at k = y; -inf where nothing is known.

    y are labels, [B] integers; the other arguments are those of `bounds`.

    Raises:
        ValueError: like `bounds`; also if a label is not a class of the network.
    """
    graph, region = _prepared(model, _region(model, x, threat, eps))
    like = region.hull.lower
    method = _Method(_domain(domain, options), memory, like.device)
    check_labels(y, graph.classes)
    if len(y) != len(like):
        raise ValueError(f"there are {len(y)} labels for {len(like)} inputs: give one label per input")
    y = y.long()
    rows = method.lower_bounds(graph, region, margin_rows(y, graph.classes, dtype=like.dtype))
    return like.new_zeros(len(y), graph.classes).scatter(1, wrong_classes(y, graph.classes), rows)


def _domain(domain: str | Domain, options: dict[str, Any]) -> Domain:
    """The domain of the arguments."""
    if "clip" in options:
        raise ValueError("clip belongs to the threat model: give e.g. Linf(0.1, clip=None) in place of eps and clip")
    return find_domain(domain, **options)


def _region(model: nn.Module, x: Tensor | Region, threat: Threat | None, eps: Radii | None) -> Region:
    """The region of the arguments."""
    if isinstance(x, Region):
        if threat is not None or eps is not None:
            raise ValueError("x is a region, which needs no threat model and no eps: leave them out, or give inputs x")
        return Box.checked(x.lower, x.upper) if isinstance(x, Box) else x
    threat = threat_or_linf(threat, eps)
    threat.check(x)
    # 0.5 - 0.1 is 0.40000001 in single precision, which would cut off a part of the region of a double network
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
    """A domain that cuts batches into parts that fit into the memory."""

    def __init__(self, domain: Domain, memory: int | None, device: torch.device) -> None:
        memory = memory_budget.of(device) if memory is None else memory
        if not isinstance(memory, int) or memory <= 0:
            raise ValueError(f"memory is {memory!r}: give a number of bytes, e.g. 2**30")
        self.domain, self.memory = domain, memory

    def lower_bounds(self, graph: Graph, region: Region, spec: Tensor) -> Tensor:
        if not len(spec):
            return spec.new_zeros(spec.shape[:2])
        size = max(1, self.memory // (self.domain.footprint(graph, spec.shape[1]) * spec.element_size()))
        parts = self._parts(_Part(self, graph, region, spec), len(spec), size)
        bound = parts[0] if len(parts) == 1 else torch.cat(parts)
        # an overflow, or a logarithm, a root or a quotient that may not be defined: nothing is known
        return torch.where(bound < torch.inf, bound, -torch.inf)

    def _parts(self, compute: _Part, count: int, size: int) -> list[Tensor]:
        """The bounds of all samples, in parts of at most `size` samples."""
        graph, spec = compute.graph, compute.spec
        numbers = sum(math.prod(node.shape) for node in graph.nodes)
        most = KEPT * (spec.shape[1] + 2 * numbers) * numbers * spec.element_size()
        if not torch.is_grad_enabled() or count * most <= self.memory or count <= sum(TRIED):
            return memory_budget.halving(compute, count, size)
        if size <= max(TRIED):
            return memory_budget.halving(replace(compute, recomputed=True), count, size)
        # the memory of gradients depends on the domain and its options, so it is measured on a few samples
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
    """The bounds of a batch, as a function of the first sample and the last one."""

    method: _Method
    graph: Graph
    region: Region
    spec: Tensor
    recomputed: bool = False  # whether the backward pass computes the bounds again, instead of keeping tensors

    def __call__(self, start: int, stop: int) -> Tensor:
        if not self.recomputed:
            return self._bounds(start, stop)
        # checkpoints repeat only the draws of torch's own generators
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
    """A function that returns the bytes kept for gradients in the context so far, each storage counted once."""
    storages = dict[int, int]()

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(storages.values())
