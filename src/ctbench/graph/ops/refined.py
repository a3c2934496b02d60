"""Values about which other values of the network say more than their own arithmetic.

    mean of rows   y = sum_j p_j v_j for weights p >= 0 with sum_j p_j = 1, e.g. of an attention. For any c,
                   y  <=  c + sum_j max(p_j^l (v_j^u - c), p_j^u (v_j^u - c)),
                   because sum_j p_j c = c. With c = max_j v_j^u, y is at most the largest row
    normalised     y_i = d_i / sqrt(mean(d^2) + eps) grows with d_i; where d_i > 0 it falls with the other squares, and
                   where d_i < 0 it grows with them

Only boxes are refined: a point, a linear form and a zonotope of such a node are those of y, the first input.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ctbench.graph.ops.base import Op, Shape
from ctbench.graph.ops.piecewise import Known

Ends = tuple[Tensor, Tensor]  # the lower and the upper ends of a box


class Refined(Op):
    """The first input, which is a function of the other inputs."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    @abstractmethod
    def around(self, *others: Ends) -> Ends:
        """Bounds of the first input, from the ends of the others."""

    @abstractmethod
    def terms(self, *others: Tensor) -> tuple[int, Tensor]:
        """How many terms the sums of `around` have at most, and a bound of the sums of |terms|, for |others|."""


FACTS = (Known, Refined)  # ops that state a fact about their first input: boxes always use it


@dataclass(frozen=True)
class MeanOfRows(Refined):
    """y [..., m, e], the product of weights [..., m, n], whose rows are >= 0 and sum to 1, and values [..., n, e]."""

    def around(self, *others: Ends) -> Ends:
        (least, greatest), (lower, upper) = others
        return -_most(least, greatest, -lower), _most(least, greatest, upper)

    def terms(self, *others: Tensor) -> tuple[int, Tensor]:
        weights, values = others
        largest = values.amax(-2, keepdim=True)
        return 2 * weights.shape[-1], largest * (1 + 4 * weights.sum(-1, keepdim=True))


def _most(least: Tensor, greatest: Tensor, values: Tensor) -> Tensor:
    """An upper bound of the means of values [..., n, e] with weights from `least` to `greatest`, [..., m, n]."""
    top, middle = values.amax(-2, keepdim=True), values.mean(-2, keepdim=True)
    distance = values - middle
    by_middle = middle + least @ distance.clamp(max=0) + greatest @ distance.clamp(min=0)
    return torch.minimum(top + least @ (values - top), by_middle)


@dataclass(frozen=True)
class Normalised(Refined):
    """y = d / sqrt(mean(d^2) + eps) along the last axis; the other input is d."""

    eps: float

    def around(self, *others: Ends) -> Ends:
        ((lower, upper),) = others
        first, last = lower.square(), upper.square()
        most = _of_others(torch.maximum(first, last))
        least = _of_others(torch.where((lower < 0) & (upper > 0), 0.0, torch.minimum(first, last)))
        low = self._at(lower, torch.where(lower > 0, most, least))
        return low, self._at(upper, torch.where(upper > 0, least, most))

    def _at(self, entry: Tensor, rest: Tensor) -> Tensor:
        return entry * ((entry.square() + rest) / entry.shape[-1] + self.eps).rsqrt()

    def terms(self, *others: Tensor) -> tuple[int, Tensor]:
        size = others[0].shape[-1]
        return size, torch.full_like(others[0], size**0.5)


def _of_others(squares: Tensor) -> Tensor:
    """The sum of the other entries along the last axis, each without cancellation."""
    size = squares.shape[-1]
    return squares @ (1 - torch.eye(size, dtype=squares.dtype, device=squares.device))
