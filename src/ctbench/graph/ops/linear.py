"""Affine layers with weights: dense layers, convolutions, and scales from normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctbench.graph.ops.base import Affine, Op, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.moves import Reshape, broadcasts, rearrangement
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


# ---------------------------------------------------------------------------------------------- convolution

FOURIER = ("cuda",)  # devices that may compute convolutions in double precision by Fourier transforms


@contextmanager
def sums_of_products(x: Tensor) -> Iterator[None]:
    """Compute convolutions of x in double precision as sums of products, because error bounds are made for these.

    cuDNN uses Fourier transforms for some kernels of height or width 1; torch's own kernels multiply matrices.
    """
    if x.dtype != torch.float64 or x.device.type not in FOURIER:
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


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
        with sums_of_products(x):
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, None)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._convolve(r, self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> Tensor:
        # rows and columns at the far edge that the stride skips get zero coefficients
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
        with sums_of_products(a):
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
        window = windows(inputs[0][1:], self.weight.shape[2:], self.stride, self.padding, self.dilation)
        return (self.weight.shape[0], *window)


def windows(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape = (1, 1)) -> Shape:
    """The number of windows along each side."""
    count = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(count) < 1:
        raise ValueError(f"a window of {tuple(kernel)} does not fit into {tuple(size)} with padding {tuple(padding)}")
    return count


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _convolution(module: nn.Conv1d | nn.Conv2d, shape: Shape, weight: Tensor, *sides: tuple[int, ...]) -> Conv2d:
    """The convolution of a layer; stride, padding and dilation are two numbers each."""
    stride, padding, dilation = (pair(side) for side in sides)
    return Conv2d(weight, module.bias, stride, padding, dilation, module.groups, shape)


@lower.register
def _(module: nn.Conv2d, shape: Shape) -> Op | Sequence[Op]:
    left, right, top, bottom = module._reversed_padding_repeated_twice  # also for "same" and "valid"
    if module.padding_mode == "zeros" and (not isinstance(module.padding, str) or (left, top) == (right, bottom)):
        padding = (top, left) if isinstance(module.padding, str) else module.padding
        return _convolution(module, shape, module.weight, module.stride, padding, module.dilation)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = rearrangement(lambda x: F.pad(x, (left, right, top, bottom), mode=mode), shape)
    shape = padded[-1].shape(shape)
    return *padded, _convolution(module, shape, module.weight, module.stride, (0, 0), module.dilation)


@lower.register
def _(module: nn.Conv1d, shape: Shape) -> Op | Sequence[Op]:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise UnsupportedLayerError(
            f"Conv1d with padding={module.padding!r}, padding_mode={module.padding_mode!r} is not supported: "
            f"give the zeros to pad as numbers"
        )
    if len(shape) != 2:
        raise ValueError(f"the layer takes (channels, length), its input has shape {shape}")
    image = (shape[0], 1, shape[1])  # of height 1
    sides = ((1, *module.stride), (0, *module.padding), (1, *module.dilation))
    op = _convolution(module, image, module.weight.unsqueeze(2), *sides)
    channels, _, length = op.shape(image)
    return Reshape(shape, image), op, Reshape((channels, 1, length), (channels, length))


@dataclass(frozen=True, eq=False)
class ConvTranspose2d(Affine):
    weight: Tensor  # [in, out / groups, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def _spread(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with sums_of_products(x):
            return F.conv_transpose2d(
                x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._spread(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self._spread(x, self.weight, None)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._spread(r, self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> Tensor:
        with sums_of_products(a):
            back = F.conv2d(a.flatten(0, 1), self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        # with an output padding of at least the stride, the convolution sees a row after the last row of the input
        height, width = (
            n - extra // s for n, s, extra in zip(back.shape[2:], self.stride, self.output_padding, strict=True)
        )
        return back[:, :, :height, :width].reshape(*a.shape[:2], len(self.weight), height, width)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else a.sum(dim=(3, 4)) @ self.bias

    def shape(self, *inputs: Shape) -> Shape:
        channels = self.weight.shape[0]
        if len(inputs[0]) != 3 or inputs[0][0] != channels:
            raise ValueError(f"the layer takes ({channels}, height, width), its input has shape {inputs[0]}")
        size = (
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra
            for n, s, p, d, k, extra in zip(
                inputs[0][1:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                self.output_padding,
                strict=True,
            )
        )
        return (self.weight.shape[1] * self.groups, *size)


@lower.register
def _(module: nn.ConvTranspose2d, shape: Shape) -> Op:
    assert not isinstance(module.padding, str)
    sides = (module.stride, module.padding, module.output_padding, module.dilation)
    stride, padding, output_padding, dilation = (pair(side) for side in sides)
    return ConvTranspose2d(module.weight, module.bias, stride, padding, output_padding, dilation, module.groups)


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


@lower.register
def _(module: nn.BatchNorm1d, shape: Shape) -> Op:
    return BatchNorm(module)


@lower.register
def _(module: nn.BatchNorm2d, shape: Shape) -> Op:
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
