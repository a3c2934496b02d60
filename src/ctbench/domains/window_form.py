"""Linear forms that live on a window of an image.

A neuron of a convolution sees a window of its input, and through the layers before a larger one, but long not the
whole image. Carried back, its form has coefficients in that window alone. A convolution with kernel k, stride s and
padding p takes the rows

    top .. top + h - 1    to    top s - p .. (top + h - 1) s - p + k - 1

so windows of one size travel together, each at a place of its own. A window may hang over the edge of the image; its
coefficients there are zero. Where a layer does not keep windows, or they are no smaller than the image, the form
becomes dense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.domains.linear_form import Form, LinearForm
from ctbench.graph import Affine, Lines
from ctbench.graph.ops import AvgPool2d, Conv2d, Scale, Shape
from ctbench.regions import Box, Region


@dataclass(frozen=True, eq=False)
class WindowForm(Form):
    coefficients: Tensor  # [B, S, channels, h, w]: zero where the window hangs over the edge
    top: Tensor  # [B, S], row of the image that the window begins at; below 0 where it hangs over
    left: Tensor  # [B, S], column likewise
    shape: Shape  # of the node, (channels, height, width)
    constant: Tensor | float  # [B, S]

    @classmethod
    def neurons(cls, index: Tensor, shape: Shape, sign: float, like: Tensor) -> WindowForm:
        """sign times single neurons of an image: index [B, S] into the flat image, or its size for an empty form."""
        channels, height, width = shape
        there = index < channels * height * width
        place = torch.where(there, index, 0)
        channel = torch.arange(channels, device=index.device) == (place // (height * width)).unsqueeze(-1)
        coefficients = sign * (channel & there.unsqueeze(-1)).to(like.dtype)
        return cls(
            coefficients.unsqueeze(-1).unsqueeze(-1),
            place % (height * width) // width,
            place % width,
            shape,
            0.0,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.coefficients.shape[3], self.coefficients.shape[4]

    def __add__(self, other: Form) -> Form:
        return self.dense() + other

    def through(self, op: Affine) -> Form:
        if isinstance(op, AvgPool2d):
            return self._through_convolution(op.as_convolution(self.coefficients))
        if isinstance(op, Conv2d):
            return self._through_convolution(op)
        if isinstance(op, Scale) and op.weight.shape[-2:] == (1, 1) and op.bias.shape[-2:] == (1, 1):
            coefficients = self.coefficients * op.weight
            return replace(self, coefficients=coefficients, constant=self.constant + self._over(op.bias))
        return self.dense().through(op)

    def _through_convolution(self, op: Conv2d) -> Form:
        (h, w), (sy, sx), (py, px), (dy, dx) = self.size, op.stride, op.padding, op.dilation
        ky, kx = op.weight.shape[2:]
        size = (h - 1) * sy + dy * (ky - 1) + 1, (w - 1) * sx + dx * (kx - 1) + 1
        _, height, width = op.input_shape
        if size[0] * size[1] >= height * width or py > dy * (ky - 1) or px > dx * (kx - 1):
            return self.dense().through(op)
        constant = self.constant if op.bias is None else self.constant + self._over(op.bias.view(-1, 1, 1))
        spread = self._spread(op)
        top, left = self.top * sy - py, self.left * sx - px
        rows, columns = _inside(top, size[0], height), _inside(left, size[1], width)
        inside = (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(2)
        coefficients = spread.reshape(*self.top.shape, *spread.shape[1:]) * inside
        return WindowForm(coefficients, top, left, op.input_shape, constant)

    def _spread(self, op: Conv2d) -> Tensor:
        """The coefficients over all pixels that a convolution reads for the window, in the padding, too."""
        flat = self.coefficients.flatten(0, 1)
        if self.size == (1, 1) and op.groups == 1 and op.dilation == (1, 1):
            return (flat.flatten(1) @ op.weight.flatten(1)).view(-1, *op.weight.shape[1:])
        return F.conv_transpose2d(flat, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)

    def _over(self, bias: Tensor) -> Tensor:
        """<a, bias> for a bias of each channel, [channels, 1, 1] to [B, S]."""
        return (self.coefficients * bias).flatten(2).sum(2)

    def relaxed(self, lines: Lines) -> WindowForm:
        positive, negative = self.coefficients.clamp(min=0), self.coefficients.clamp(max=0)
        coefficients = torch.addcmul(positive * self._cut(lines.lower_slope), negative, self._cut(lines.upper_slope))
        constant = self.constant + (negative * self._cut(lines.upper_offset)).flatten(2).sum(2)
        if lines.lower_offset is not None:
            constant = constant + (positive * self._cut(lines.lower_offset)).flatten(2).sum(2)
        return replace(self, coefficients=coefficients, constant=constant)

    def minimum(self, region: Region) -> Tensor:
        if not isinstance(region, Box):
            return self.dense().minimum(region)
        a = self.coefficients
        least = a * self._cut(region.center) - a.abs() * self._cut(region.radius)
        return least.flatten(2).sum(2) + self.constant

    def _cut(self, image: Tensor) -> Tensor:
        """Each form's window of an image, zero beyond the edge: [B, *shape] to [B, S, channels, h, w]."""
        (h, w), columns = self.size, self.shape[2] + 2 * self.size[1]
        # forms of all channels begin at the same places: cut a window at each place once, then pick
        places, which = ((self.top + h) * columns + self.left + w).unique(return_inverse=True)
        views = F.pad(image, (w, w, h, h)).unfold(2, h, 1).unfold(3, w, 1)
        windows = views[:, :, places // columns, places % columns].transpose(1, 2).flatten(0, 1)
        first = torch.arange(len(image), device=image.device).unsqueeze(1) * len(places)
        return windows.flatten(1).index_select(0, (first + which).flatten()).view(self.coefficients.shape)

    @property
    def width(self) -> int:
        return self.coefficients[0, 0].numel()

    def without_constant(self) -> WindowForm:
        return replace(self, constant=0.0)

    def dense(self) -> LinearForm:
        (h, w), (channels, height, width) = self.size, self.shape
        batch, forms = self.top.shape
        rows = self.top.unsqueeze(-1) + torch.arange(h, device=self.top.device) + h
        columns = self.left.unsqueeze(-1) + torch.arange(w, device=self.top.device) + w
        place = rows.unsqueeze(-1) * (width + 2 * w) + columns.unsqueeze(-2)
        canvas = self.coefficients.new_zeros(batch, forms, channels, (height + 2 * h) * (width + 2 * w))
        canvas = canvas.scatter(
            3, place.flatten(2).unsqueeze(2).expand(-1, -1, channels, -1), self.coefficients.flatten(3)
        )
        whole = canvas.reshape(batch, forms, channels, height + 2 * h, width + 2 * w)
        return LinearForm(whole[..., h : h + height, w : w + width], self.constant)


def _inside(start: Tensor, size: int, limit: int) -> Tensor:
    """Which of the rows from `start` on lie in the image: [B, S] to [B, S, size]."""
    place = start.unsqueeze(-1) + torch.arange(size, device=start.device)
    return (place >= 0) & (place < limit)
