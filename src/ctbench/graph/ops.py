"""The ops that a network is made of, as values.

Two families carry almost everything, and each answers the few questions that every domain is written in:

    Affine       x -> W x + b      magnitude(r) = |W| r,  adjoint(a) = W^T a,  offset(a) = <a, b>
    Elementwise  x -> f(x)         image(l, u), lines(l, u, slope), exact(l, u)

W is never formed. Tensors with a leading batch are [B, *shape], coefficients of S linear forms a sample are
[B, S, *shape]; a `shape` alone is without them. A new op is one section here, with its line in `lower`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.networks import Normalize

Shape = tuple[int, ...]


class UnsupportedLayerError(ValueError):
    """A layer that no op has been registered for."""


class Op(ABC):
    """A function of one or more tensors. Ops are frozen dataclasses; parameters are held, never copied."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor: ...

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """The shape that comes out for the shapes that go in; ValueError where they do not fit."""

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        """This op with every quantity fixed that it takes from the batch."""
        return self

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same op with each of its tensors changed."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        changed = {name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


class Affine(Op):
    """x -> W x + b."""

    mixes: ClassVar[bool] = True  # whether an output may depend on several inputs

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...  # type: ignore[override]

    @abstractmethod
    def magnitude(self, r: Tensor) -> Tensor:
        """|W| r, for a radius r >= 0."""

    @abstractmethod
    def adjoint(self, a: Tensor) -> Tensor:
        """W^T a, for coefficients a of the output."""

    @abstractmethod
    def offset(self, a: Tensor) -> Tensor | float:
        """<a, b>, [B, S]."""


class Lines(NamedTuple):
    """lower_slope z + lower_offset <= f(z) <= upper_slope z + upper_offset, for all z in [l, u]."""

    lower_slope: Tensor
    lower_offset: Tensor | None  # None is 0 everywhere
    upper_slope: Tensor
    upper_offset: Tensor


class Elementwise(Op):
    """x -> f(x), coordinate by coordinate."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...  # type: ignore[override]

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    @abstractmethod
    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest value of f on [l, u]."""

    @abstractmethod
    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Lines:
        """Lines around f on [l, u]; `slope` in [0, 1] is the free one, where there is a choice."""

    @abstractmethod
    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where f is itself a line on [l, u], so that tighter bounds of the input would change nothing."""


@singledispatch
def lower(module: nn.Module, shape: Shape) -> Op:
    """The op that a layer is, for inputs of this shape.

    Open to other layers: `@lower.register` a function of the layer and its input shape that returns an Op.
    """
    raise UnsupportedLayerError(
        f"layer type {type(module).__module__}.{type(module).__qualname__} is not supported: register an op for "
        f"it with @ctbench.graph.lower.register, a function of the layer and its input shape"
    )


# ---------------------------------------------------------------------------------------------------- input


@dataclass(frozen=True)
class Input(Op):
    """The start of a graph."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


# --------------------------------------------------------------------------------------------------- linear


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    weight: Tensor  # [out, in]
    bias: Tensor | None  # [out]

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, self.bias)

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


# ---------------------------------------------------------------------------------------------- convolution


@dataclass(frozen=True, eq=False)
class Conv2d(Affine):
    weight: Tensor  # [out, in / groups, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    input_shape: Shape  # (channels, height, width)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, self.weight, self.bias)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._convolve(r, self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> Tensor:
        # the rows and columns that the stride left over at the far edge get zero coefficients
        height, width = self.shape(self.input_shape)[1:]
        left_over = tuple(
            size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, out, s, p, d, k in zip(
                self.input_shape[1:],
                (height, width),
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        )
        back = F.conv_transpose2d(
            a.flatten(0, 1),
            self.weight,
            None,
            self.stride,
            self.padding,
            left_over,
            self.groups,
            self.dilation,
        )
        return back.reshape(*a.shape[:2], *self.input_shape)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else a.sum(dim=(3, 4)) @ self.bias

    def shape(self, *inputs: Shape) -> Shape:
        channels = self.weight.shape[1] * self.groups
        if len(inputs[0]) != 3 or inputs[0][0] != channels:
            raise ValueError(f"the layer takes ({channels}, height, width), its input has shape {inputs[0]}")
        window = _windows(inputs[0][1:], self.weight.shape[2:], self.stride, self.padding, self.dilation)
        return (self.weight.shape[0], *window)


def _windows(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape = (1, 1)) -> Shape:
    """How many windows fit along each side."""
    count = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(count) < 1:
        raise ValueError(f"a window of {tuple(kernel)} does not fit into {tuple(size)} with padding {tuple(padding)}")
    return count


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@lower.register
def _(module: nn.Conv2d, shape: Shape) -> Op:
    padding = module.padding
    if padding == "valid":
        padding = (0, 0)
    if isinstance(padding, str) or module.padding_mode != "zeros":
        raise UnsupportedLayerError(
            f"Conv2d with padding={module.padding!r}, padding_mode={module.padding_mode!r} is not supported: "
            f"give the zeros to pad as numbers"
        )
    return Conv2d(
        module.weight,
        module.bias,
        _pair(module.stride),
        _pair(padding),
        _pair(module.dilation),
        module.groups,
        shape,
    )


# ------------------------------------------------------------------------------------------ average pooling


@dataclass(frozen=True)
class AvgPool2d(Affine):
    """The mean of every window, zeros of the padding counted in: an affine map with positive weights."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    input_shape: Shape  # (channels, height, width)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding)

    def magnitude(self, r: Tensor) -> Tensor:
        return self(r)

    def adjoint(self, a: Tensor) -> Tensor:
        return self.as_convolution(a).adjoint(a)

    def as_convolution(self, like: Tensor) -> Conv2d:
        """The same map, with weights of this precision."""
        channels = self.input_shape[0]
        weight = like.new_full((channels, 1, *self.kernel), 1 / math.prod(self.kernel))
        return Conv2d(weight, None, self.stride, self.padding, (1, 1), channels, self.input_shape)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0

    def shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) != 3:
            raise ValueError(f"the layer takes (channels, height, width), its input has shape {inputs[0]}")
        return (inputs[0][0], *_windows(inputs[0][1:], self.kernel, self.stride, self.padding))


@lower.register
def _(module: nn.AvgPool2d, shape: Shape) -> Op:
    padding = _pair(module.padding)
    uneven = not module.count_include_pad and padding != (0, 0)
    if module.ceil_mode or uneven or module.divisor_override is not None:
        raise UnsupportedLayerError(
            "AvgPool2d with ceil_mode, divisor_override or count_include_pad=False beside padding is not supported"
        )
    stride = module.kernel_size if module.stride is None else module.stride
    return AvgPool2d(_pair(module.kernel_size), _pair(stride), padding, shape)


# ------------------------------------------------------------------------------- scale, normalise, batch norm


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """x -> weight * x + bias, both broadcast over the input: normalisation, and batch norm once it is frozen."""

    mixes: ClassVar[bool] = False
    weight: Tensor  # broadcasts to the input's shape, as [C, 1, 1]
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.addcmul(self.bias, x, self.weight)

    def magnitude(self, r: Tensor) -> Tensor:
        return r * self.weight.abs()

    def adjoint(self, a: Tensor) -> Tensor:
        return a * self.weight

    def offset(self, a: Tensor) -> Tensor | float:
        return (a * self.bias).flatten(2).sum(2)

    def shape(self, *inputs: Shape) -> Shape:
        factors = (1,) * (len(inputs[0]) - self.weight.dim()) + tuple(self.weight.shape)
        if any(size not in (1, n) for n, size in zip(inputs[0], factors, strict=True)):
            raise ValueError(f"factors of shape {tuple(self.weight.shape)} do not fit inputs of shape {inputs[0]}")
        return inputs[0]


@lower.register
def _(module: Normalize, shape: Shape) -> Op:
    return Scale(1 / module.std, -module.mean / module.std)


@dataclass(frozen=True, eq=False)
class BatchNorm(Op):
    """A batch norm whose statistics are still open: `freeze` turns it into a Scale, and only then it is a function.

    In training the Scale is made of this batch's mean and biased variance, which carry gradients (Shi et al. 2021,
    section 3.3), and the running statistics follow; otherwise it is made of the running statistics.
    """

    module: nn.BatchNorm1d | nn.BatchNorm2d

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
                "this batch norm keeps no running statistics, so its network answers a batch, not a sample: "
                "set track_running_stats=True"
            )
        factor = (variance + module.eps).rsqrt()
        if module.weight is not None:
            factor = factor * module.weight
        shift = -mean * factor
        if module.bias is not None:
            shift = shift + module.bias
        shape = (-1, *[1] * (x.dim() - 2))
        return Scale(factor.view(shape), shift.view(shape))

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1]
        if count < 2:
            raise ValueError("batch norm needs more than one value per channel to train: use larger batches")
        mean = x.mean(dims, keepdim=True)
        variance = (x - mean).square().mean(dims)  # twice as fast as torch.var_mean on a CPU, forward and backward
        mean = mean.flatten()
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        return mean, variance

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of this batch, as torch does."""
        module = self.module
        if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
            return
        module.num_batches_tracked += 1
        momentum = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
        module.running_mean.lerp_(mean, momentum)
        module.running_var.lerp_(variance, momentum)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        raise ValueError("this batch norm has no statistics yet: call freeze(graph, x) first")


@lower.register
def _(module: nn.BatchNorm1d, shape: Shape) -> Op:
    return BatchNorm(module)


@lower.register
def _(module: nn.BatchNorm2d, shape: Shape) -> Op:
    return BatchNorm(module)


# -------------------------------------------------------------------------------------------------- reshape


@dataclass(frozen=True)
class Reshape(Affine):
    mixes: ClassVar[bool] = False
    input_shape: Shape
    output_shape: Shape

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(-1, *self.output_shape)

    def magnitude(self, r: Tensor) -> Tensor:
        return self(r)

    def adjoint(self, a: Tensor) -> Tensor:
        return a.reshape(*a.shape[:2], *self.input_shape)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0

    def shape(self, *inputs: Shape) -> Shape:
        if math.prod(inputs[0]) != math.prod(self.output_shape):
            raise ValueError(f"{inputs[0]} cannot be reshaped to {self.output_shape}")
        return self.output_shape


@lower.register
def _(module: nn.Flatten, shape: Shape) -> Op:
    rank = len(shape) + 1
    start, end = module.start_dim % rank, module.end_dim % rank
    if start == 0:
        raise UnsupportedLayerError("Flatten(start_dim=0) mixes the samples of a batch: flatten from dimension 1 on")
    flat = (*shape[: start - 1], math.prod(shape[start - 1 : end]), *shape[end:])
    return Reshape(shape, flat)


@lower.register
def _(module: nn.Identity, shape: Shape) -> Op:
    return Reshape(shape, shape)


# ------------------------------------------------------------------------------------------------------ ReLU


@dataclass(frozen=True)
class ReLU(Elementwise):
    """max(0, z). For l < 0 < u the upper line is the chord, and any line s z with s in [0, 1] lies below."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.relu(x)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(lower), F.relu(upper)

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Lines:
        active, inactive = lower >= 0, upper <= 0
        # a stable neuron's width may be 0: divide by 1 there, or 0/0 would reach the gradients through where()
        width = torch.where(active | inactive, 1.0, upper - lower)
        # an infinite width would make the chord 0, and that is no bound: NaN certifies nothing
        slanted = torch.where(width.isinf(), math.nan, upper / width)
        chord = torch.where(active, 1.0, torch.where(inactive, 0.0, slanted))
        lower_slope = torch.where(active, 1.0, torch.where(inactive, 0.0, slope))
        lift = torch.where(active | inactive, 0.0, -lower * chord)
        return Lines(lower_slope, None, chord, lift)

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0)


@lower.register
def _(module: nn.ReLU, shape: Shape) -> Op:
    return ReLU()


# ------------------------------------------------------------------------------------------------------ sums


@dataclass(frozen=True)
class Add(Op):
    """The sum of two branches of one shape."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]

    def shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != inputs[1]:
            raise ValueError(f"the sum joins branches of one shape, these are {inputs[0]} and {inputs[1]}")
        return inputs[0]
