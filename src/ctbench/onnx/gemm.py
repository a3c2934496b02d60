"""A dense layer with separate factors: alpha W x + beta b, the operator Gemm of ONNX.

alpha W is rounded in single precision, but in double precision the product of two single precision numbers is exact. So
the product is computed when the precision of a graph is known, and W and b are the parameters that are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import Op, lower
from ctbench.graph.ops import Linear, Shape


class Gemm(nn.Linear):
    """alpha W x + beta b, x [..., in] to [..., out]."""

    def __init__(self, in_features: int, out_features: int, *, alpha: float, beta: float, **options: Any) -> None:
        super().__init__(in_features, out_features, **options)
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.alpha * self.weight, None if self.bias is None else self.beta * self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}, beta={self.beta}"


@dataclass(frozen=True, eq=False)
class RoundedLinear(Linear):
    """A dense layer with weights that were rounded when the graph was made, because they are products."""


@dataclass(frozen=True, eq=False)
class OpenGemm(Op):
    """The layer in a graph; `freeze` multiplies."""

    weight: Tensor  # [out, in]
    bias: Tensor | None  # [out]
    alpha: float
    beta: float

    def __call__(self, *inputs: Tensor) -> Tensor:
        raise ValueError("this layer is not multiplied out yet: call freeze(graph, x) first")

    def shape(self, *inputs: Shape) -> Shape:
        return Linear(self.weight, self.bias).shape(*inputs)

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        kind = Linear if self._is_exact else RoundedLinear
        return kind(self.alpha * self.weight, None if self.bias is None else self.beta * self.bias)

    @property
    def _is_exact(self) -> bool:
        """Whether the products are exact in double precision: all factors are single precision numbers."""
        numbers = [torch.tensor([self.alpha, self.beta], dtype=torch.float64, device=self.weight.device)]
        numbers += [self.weight] if self.alpha != 1 else []
        numbers += [self.bias] if self.bias is not None and self.beta != 1 else []
        return all(torch.equal(each.double(), each.float().double()) for each in numbers)


@lower.register
def _(module: Gemm, shape: Shape) -> Op:
    return OpenGemm(module.weight, module.bias, module.alpha, module.beta)
