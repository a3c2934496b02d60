"""What lies around each relaxed op over the boxes of N sub-problems, by free numbers that an ascent optimises.

    op                    free numbers, [N, *node] each          around it
    ReLU                  the slope below                        the line of this slope through 0, and the chord
    another convex one    the slope below                        the tightest line of this slope, and the chord
    any other curve       the slopes below and above             the tightest lines of these slopes
    product               two shares in [0, 1]                   planes between those of McCormick

Slopes are moved into the range of f' on the box (`admitted`). Any of them are sound, because the op computes offsets.
If one entry of a box is narrowed, its lines alone are computed again (`put`). A maximum has none of these: branch and
bound writes it with ReLUs (`verify.maxima`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from ctbench.domains import backward
from ctbench.domains.backward import Relaxed
from ctbench.domains.unsupported import no_rule
from ctbench.graph import Elementwise, Lines, Node
from ctbench.graph.ops import Product, ReLU
from ctbench.regions import Box

Free = tuple[Tensor, ...]  # the free numbers of an op: none, those below, or those below and above
Boxes = dict[int, Box]  # of every node that a relaxed op reads, by its position


class Envelope(ABC):
    """What lies around an op."""

    @abstractmethod
    def admitted(self, free: Free) -> Free:
        """The free numbers, moved into their ranges."""

    @abstractmethod
    def around(self, free: Free) -> Relaxed:
        """The lines or planes around the op, for admitted numbers."""

    def take(self, chosen: Tensor) -> Self:
        """The envelope of some sub-problems."""
        return self._map(lambda tensor: tensor[chosen])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


class Lined(Envelope):
    """What lies around a function of one value: each of its entries has lines of its own."""

    least: Tensor  # [N, *node]: the range of the free slopes
    greatest: Tensor

    def admitted(self, free: Free) -> Free:
        return tuple(slope.clamp(self.least, self.greatest) for slope in free)

    @property
    def is_open(self) -> Tensor:
        """The entries of which the lines lose something, [N, *node]: they can be split."""
        return self.least < self.greatest

    @abstractmethod
    def alone(self, entry: Box, here: Tensor) -> Self:
        """What lies around the entries `here` [N, 1] if they are in a box of their own, [N, 1]."""

    def put(self, change: Callable[..., Tensor], other: Self) -> Self:
        """The envelope with one entry of each sub-problem from another: `change(image, value=...)` puts [N, 1].

        Ranges of slopes stay as they are: it is for slopes that are admitted by both.
        """
        names = [field.name for field in fields(self) if field.name not in ("least", "greatest")]  # type: ignore[arg-type]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        changed = {name: change(old, value=new) for name, (old, new) in pairs.items() if isinstance(old, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class ReLULines(Lined):
    """A line through 0 below a ReLU, and its chord."""

    least: Tensor
    greatest: Tensor
    slope: Tensor  # of the chord
    offset: Tensor

    @classmethod
    def of(cls, op: ReLU, box: Box) -> ReLULines:
        least, greatest = op.slopes(box.lower, box.upper)
        chord = op.chord(box.lower, box.upper)
        lines = op.lines(box.lower, box.upper, chord, chord)
        return cls(least, greatest, lines.upper_slope, lines.upper_offset)

    def alone(self, entry: Box, here: Tensor) -> ReLULines:
        return ReLULines.of(ReLU(), entry)

    def around(self, free: Free) -> Relaxed:
        return Lines(free[0], None, self.slope, self.offset)


@dataclass(frozen=True, eq=False)
class CurveLines(Lined):
    """The tightest lines of free slopes around a curve; above a convex one the chord."""

    op: Elementwise
    lower: Tensor
    upper: Tensor
    least: Tensor
    greatest: Tensor
    chord: Tensor | None  # of a convex op

    @classmethod
    def of(cls, op: Elementwise, box: Box, whole: Box | None = None) -> CurveLines:
        """Lines over a box. Their slopes are also slopes over the `whole` box, for which rounding was bounded."""
        least, greatest = backward.slopes_within(op, box, whole)
        chord = op.chord(box.lower, box.upper) if op.convex else None
        return cls(op, box.lower, box.upper, least, greatest, chord)

    def alone(self, entry: Box, here: Tensor) -> CurveLines:
        op = self.op.seen_by(lambda tensor: tensor.flatten(1).gather(1, here), self.lower)
        return CurveLines.of(op, entry)

    def around(self, free: Free) -> Relaxed:
        return self.op.lines(self.lower, self.upper, free[0], free[1] if self.chord is None else self.chord)


@dataclass(frozen=True, eq=False)
class ProductPlanes(Envelope):
    """Planes around a product, each at a share of the way from one plane of McCormick to the other."""

    op: Product
    first_lower: Tensor
    first_upper: Tensor
    second_lower: Tensor
    second_upper: Tensor

    def admitted(self, free: Free) -> Free:
        return tuple(share.clamp(0, 1) for share in free)

    def around(self, free: Free) -> Relaxed:
        first, second = (self.first_lower, self.first_upper), (self.second_lower, self.second_upper)
        return self.op.planes(first, second, *free)


def lined(op: Elementwise, box: Box, whole: Box | None = None) -> ReLULines | CurveLines:
    """What lies around a function of one value."""
    return ReLULines.of(op, box) if isinstance(op, ReLU) else CurveLines.of(op, box, whole)


def envelope(node: Node, boxes: Boxes, whole: Boxes | None = None) -> Envelope:
    """What lies around a relaxed node over boxes; `whole` has the boxes for which rounding was bounded."""
    box = boxes[node.inputs[0]]
    if isinstance(node.op, Elementwise):
        return lined(node.op, box, None if whole is None else whole[node.inputs[0]])
    if not isinstance(node.op, Product):
        raise no_rule("beta-CROWN", node.op)
    other = boxes[node.inputs[1]]
    return ProductPlanes(node.op, box.lower, box.upper, other.lower, other.upper)


def begin(node: Node, boxes: Boxes) -> Free:
    """The first free numbers of a relaxed node: those of the lines with the smallest areas."""
    box = boxes[node.inputs[0]]
    if isinstance(node.op, Product):
        return torch.full_like(box.lower, 0.5), torch.full_like(box.lower, 0.5)
    if not isinstance(node.op, Elementwise):
        raise no_rule("beta-CROWN", node.op)
    return node.op.tightest(box.lower, box.upper)[: 1 if node.op.convex else 2]
