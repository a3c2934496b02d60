"""Affine layers with weights: dense layers, and scales from normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctbench.graph.ops.base import Affine, Op, Shape, lower
from ctbench.graph.ops.convolutions import Conv2d
from ctbench.graph.ops.moves import Reshape, broadcasts
from ctbench.networks import Normalize

# --------------------------------------------------------------------------------------------------- linear


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    weight: Tensor  # [out, in]
    bias: Tensor | None  # [out]

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def magnitude(self, r: Tensor) -> Tensor:
        return F.linear(r, self.weight.abs())

    def adjoint(self, a: Tensor) -> Tensor:
        return a @ self.weight

    def offset(self, a: Tensor) -> Tensor | float:
        if self.bias is None:
            return 0.0
        return (a @ self.bias).flatten(2).sum(2) if a.dim() > 3 else a @ self.bias

    def shape(self, *inputs: Shape) -> Shape:
        out, expected = self.weight.shape
        if inputs[0][-1] != expected:
            raise ValueError(f"the layer takes {expected} features, its input has shape {inputs[0]}")
        return (*inputs[0][:-1], out)


@lower.register
def _(module: nn.Linear, shape: Shape) -> Op:
    return Linear(module.weight, module.bias)


# ------------------------------------------------------------------------------- scale, normalise, batch norm


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """x -> weight * x + bias, both broadcast over the input: normalisation, and frozen batch norm."""

    mixes: ClassVar[bool] = False
    weight: Tensor  # broadcasts to the input's shape, e.g. [C, 1, 1]
    bias: Tensor
    bias_terms: Tensor | None = None  # the sum of |terms| of the bias if weight and bias are rounded, else None

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.addcmul(self.bias, x, self.weight)

    def linear(self, x: Tensor) -> Tensor:
        return x * self.weight

    def magnitude(self, r: Tensor) -> Tensor:
        return r * self.weight.abs()

    def adjoint(self, a: Tensor) -> Tensor:
        return a * self.weight

    def offset(self, a: Tensor) -> Tensor | float:
        # sum the coefficients of a channel before multiplying by its bias: gradients have fewer entries
        alike = [at - self.bias.dim() for at, size in enumerate(self.bias.shape) if size == 1]
        a = a.sum(alike, keepdim=True) if alike else a
        return (a * self.bias).flatten(2).sum(2)

    def shape(self, *inputs: Shape) -> Shape:
        if not broadcasts(self.weight.shape, inputs[0]):
            raise ValueError(f"factors of shape {tuple(self.weight.shape)} do not fit inputs of shape {inputs[0]}")
        return inputs[0]


@lower.register
def _(module: Normalize, shape: Shape) -> Op:
    shift = -module.mean / module.std
    return Scale(1 / module.std, shift, shift.detach().abs())


@dataclass(frozen=True, eq=False)
class ScaledConv2d(Conv2d):
    """A convolution and the scale of its channels as one op, which saves a pass over the values.

    Its weight and bias are computed from both; `map` changes the tensors of the convolution and of the scale.
    """

    convolution: Conv2d
    scale: Scale

    @classmethod
    def of(cls, convolution: Conv2d, scale: Scale) -> Self:
        factor, shift = scale.weight.flatten(), scale.bias.flatten()
        own = {field.name: getattr(convolution, field.name) for field in fields(Conv2d)}
        own["weight"] = convolution.weight * factor.view(-1, 1, 1, 1)
        own["bias"] = shift if convolution.bias is None else torch.addcmul(shift, convolution.bias, factor)
        return cls(**own, convolution=convolution, scale=scale)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return self.of(self.convolution.map(change), self.scale.map(change))


@dataclass(frozen=True, eq=False)
class BatchNorm(Op):
    """A batch norm with open statistics: it has to be frozen into a Scale before it can be evaluated.

    In training the Scale is computed from the mean and the biased variance of this batch, with gradients (Shi et al.
    2021, section 3.3), and the running statistics are updated. Otherwise it is computed from the running statistics.
    """

    module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

    def __call__(self, *inputs: Tensor) -> Tensor:
        raise ValueError("this batch norm has no statistics yet: call freeze(graph, x) first")

    def shape(self, *inputs: Shape) -> Shape:
        if inputs[0][0] != self.module.num_features:
            raise ValueError(f"the layer takes {self.module.num_features} channels, its input has shape {inputs[0]}")
        return inputs[0]

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        (x,) = inputs
        module = self.module
        if training:
            mean, variance = self._batch_statistics(x)
        elif module.running_mean is not None and module.running_var is not None:
            mean, variance = module.running_mean, module.running_var
        else:
            raise ValueError(
                "this batch norm has no running statistics, so the result for a sample depends on its batch: "
                "set track_running_stats=True"
            )
        factor = (variance + module.eps).rsqrt()
        if module.weight is not None:
            factor = factor * module.weight
        shift = -mean * factor
        terms = shift.abs()
        if module.bias is not None:
            shift, terms = shift + module.bias, terms + module.bias.abs()
        shape = (-1, *[1] * (x.dim() - 2))
        return Scale(factor.view(shape), shift.view(shape), None if training else terms.detach().view(shape))

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1]
        if count < 2:
            raise ValueError("batch norm needs more than one value per channel to train: use larger batches")
        mean, variance = Moments.apply(x, dims)  # type: ignore[no-untyped-call]
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        return mean, variance

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with those of this batch, like torch."""
        module = self.module
        if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
            return
        module.num_batches_tracked += 1
        count = module.num_batches_tracked.to(mean.dtype)
        momentum = count.reciprocal() if module.momentum is None else module.momentum
        module.running_mean.lerp_(mean, momentum)
        module.running_var.lerp_(variance, momentum)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        raise ValueError("this batch norm has no statistics yet: call freeze(graph, x) first")


class Moments(torch.autograd.Function):
    """Mean and biased variance of x [B, C, ...] over all dimensions except the channels, [C] each.

    Their gradient is linear in each value, so it needs one pass over the values; autograd makes about eight.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
        mean = x.mean(dims, keepdim=True)
        ctx.save_for_backward(x, mean)
        return mean.flatten(), (x - mean).square_().mean(dims)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        count = x.numel() // mean.numel()
        slope = (2 / count * by_variance).view_as(mean)
        return torch.addcmul(by_mean.view_as(mean) / count - slope * mean, slope, x), None


@lower.register(nn.BatchNorm1d)
@lower.register(nn.BatchNorm2d)
@lower.register(nn.BatchNorm3d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, shape: Shape) -> Op:
    return BatchNorm(module)


# -------------------------------------------------------------------------------------------------- dropout


@dataclass(frozen=True)
class Dropout(Op):
    """A dropout. `freeze` replaces it by the identity in eval mode, and raises ValueError in training."""

    rate: float

    def __call__(self, *inputs: Tensor) -> Tensor:
        raise ValueError("this dropout is still open: call freeze(graph, x) first")

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        if training and self.rate > 0:
            raise ValueError(
                f"dropout of rate {self.rate:g} cannot be trained with bounds: one clean pass, its attacks and its "
                f"bounds would see different networks; remove the layer, or set p=0"
            )
        shape = tuple(inputs[0].shape[1:])
        return Reshape(shape, shape)


@lower.register(nn.Dropout)
@lower.register(nn.Dropout1d)
@lower.register(nn.Dropout2d)
@lower.register(nn.AlphaDropout)
def _(module: nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout, shape: Shape) -> Op:
    return Dropout(module.p)
