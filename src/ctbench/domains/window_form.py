"""Linear forms with coefficients in a window of an image.

A neuron of a convolution reads a window of its input, and through the layers before it a larger one, but over many
layers not the whole image. Carried back, its form has coefficients only in that window. A convolution with kernel k,
stride s and padding p takes the rows

    top .. top + h - 1    to    top s - p .. (top + h - 1) s - p + k - 1

so windows of one size are carried together, each at its own place. G forms share each of P windows: the channels of a
convolution at one place, or a lower and an upper bound. If all samples, or all windows, have the same coefficients
(e.g. at the start), these are stored once. A window may extend beyond the edge of the image, where lines and regions
are zero. If a layer does not keep windows, or they are not smaller than the image, the form becomes dense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.domains.linear_form import Form, LinearForm, added, outward, relaxed_form
from ctbench.graph import Affine, Lines
from ctbench.graph.ops import AvgPool2d, Conv2d, Scale, Shape, Shift
from ctbench.graph.ops.convolutions import sums_of_products
from ctbench.regions import Box, Region

# a convolution to at most this many channels is one product of the windows and a matrix of at most this many entries
FEW_CHANNELS, LARGEST_MATRIX = 4, 2**22


@dataclass(frozen=True, eq=False)
class WindowForm(Form):
    coefficients: Tensor  # [B, G, P, channels, h, w]; B and P may be 1 for all samples and all windows
    top: Tensor  # [B, P], or [1, P] for all samples: the first row of the window; negative beyond the edge
    left: Tensor  # likewise, the first column
    shape: Shape  # of the node, (channels, height, width)
    constant: Tensor | float = 0.0  # [B, G, P] likewise
    upper_constant: Tensor | float | None = None
    clean: bool = True  # whether all coefficients beyond the edge are zero

    @classmethod
    def neurons(cls, index: Tensor, shape: Shape, signs: Tensor) -> WindowForm:
        """Each sign [G] times single neurons of an image: index [B, P] into the flat image; its size is no neuron."""
        channels, height, width = shape
        there = index < channels * height * width
        place = torch.where(there, index, 0)
        channel = torch.arange(channels, device=index.device) == (place // (height * width)).unsqueeze(-1)
        coefficients = signs.view(-1, 1, 1) * (channel & there.unsqueeze(-1)).unsqueeze(1)  # [B, G, P, channels]
        row, column = place % (height * width) // width, place % width
        return cls(coefficients.unsqueeze(-1).unsqueeze(-1), row, column, shape)

    @classmethod
    def pixels(cls, place: Tensor, shape: Shape, signs: Tensor) -> WindowForm:
        """Each sign times every channel at places [P] of the flat image plane; G is the number of signs x channels."""
        every = torch.eye(shape[0], dtype=signs.dtype, device=signs.device)
        coefficients = (signs.view(-1, 1, 1) * every).flatten(0, 1)  # [G, channels]
        row, column = place // shape[2], place % shape[2]
        return cls(coefficients[None, :, None, :, None, None], row[None], column[None], shape)

    @property
    def count(self) -> int:
        return self.coefficients.shape[1] * self.top.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.coefficients.shape[4], self.coefficients.shape[5]

    def __add__(self, other: Form) -> Form:
        if not isinstance(other, WindowForm) or self.top.shape != other.top.shape:
            return self.dense() + other
        down, right = other.top - self.top, other.left - self.left
        dy, dx = int(down[0, 0]), int(right[0, 0])
        # the windows of two branches differ by one offset: both are padded to the window around both
        top, left = min(dy, 0), min(dx, 0)
        h, w = (max(a, b + d) - c for a, b, d, c in zip(self.size, other.size, (dy, dx), (top, left), strict=True))
        if not bool((down == dy).all() & (right == dx).all()) or h * w >= self.shape[1] * self.shape[2]:
            return self.dense() + other

        def filled(form: WindowForm, above: int, before: int) -> Tensor:
            size = form.size
            return F.pad(form.inside().coefficients, (before, w - size[1] - before, above, h - size[0] - above))

        return replace(
            self,
            coefficients=filled(self, -top, -left) + filled(other, dy - top, dx - left),
            top=self.top + top,
            left=self.left + left,
            constant=self.constant + other.constant,
            upper_constant=added(self.upper_constant, other.upper_constant),
            clean=True,
        )

    def through(self, op: Affine) -> Form:
        if isinstance(op, AvgPool2d):
            return self._through_convolution(op.as_convolution(self.coefficients))
        if isinstance(op, Conv2d):
            return self._through_convolution(op)
        if isinstance(op, Shift) and op.bias.shape[-2:] == (1, 1):
            inside = self.inside()
            return inside._moved(inside.coefficients, op.bias)
        if isinstance(op, Scale) and op.weight.shape[-2:] == (1, 1) and op.bias.shape[-2:] == (1, 1):
            inside = self.inside()
            return inside._moved(inside.coefficients * op.weight, op.bias)
        return self.dense().through(op)

    def _through_convolution(self, op: Conv2d) -> Form:
        (h, w), (sy, sx), (py, px), (dy, dx) = self.size, op.stride, op.padding, op.dilation
        ky, kx = op.weight.shape[2:]
        size = (h - 1) * sy + dy * (ky - 1) + 1, (w - 1) * sx + dx * (kx - 1) + 1
        _, height, width = op.input_shape
        if size[0] * size[1] >= height * width or py > dy * (ky - 1) or px > dx * (kx - 1):
            return self.dense().through(op)
        inside = self.inside()
        moved = inside._moved(inside._spread(op), None if op.bias is None else op.bias.view(-1, 1, 1))
        top, left = self.top * sy - py, self.left * sx - px
        return replace(moved, top=top, left=left, shape=op.input_shape, clean=py == 0 and px == 0 and self.clean)

    def _moved(self, coefficients: Tensor, bias: Tensor | None) -> WindowForm:
        """The form with other coefficients, and with a bias [channels or 1, 1, 1] added to the constants."""
        if bias is None:
            return replace(self, coefficients=coefficients)
        over = self.coefficients.flatten(3) @ bias.expand(self.coefficients.shape[3:]).flatten()
        upper = added(self.upper_constant, over)
        return replace(self, coefficients=coefficients, constant=self.constant + over, upper_constant=upper)

    def _spread(self, op: Conv2d) -> Tensor:
        """The coefficients over all pixels that a convolution reads for the window, including its padding."""
        flat, leading = self.coefficients.flatten(0, 2), self.coefficients.shape[:3]
        if self.size == (1, 1) and op.groups == 1 and op.dilation == (1, 1):
            return (flat.flatten(1) @ op.weight.flatten(1)).view(*leading, *op.weight.shape[1:])

        def carry(a: Tensor) -> Tensor:
            with sums_of_products(a):
                return F.conv_transpose2d(a, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)

        entries = flat[0].numel()
        if op.input_shape[0] <= FEW_CHANNELS and entries**2 <= LARGEST_MATRIX:
            matrix = carry(torch.eye(entries, dtype=flat.dtype, device=flat.device).view(-1, *flat.shape[1:]))
            return (flat.flatten(1) @ matrix.flatten(1)).view(*leading, *matrix.shape[1:])
        spread = carry(flat)
        return spread.view(*leading, *spread.shape[1:])

    def view(self, image: Tensor) -> Tensor:
        """Each window of an image, zero beyond the edge: [B, *shape] to [B, 1, P, channels, h, w]."""
        h, w = self.size
        # a window may begin far outside the image, where it reads only zeros
        top, left = (self.top + h).clamp(0, self.shape[1] + h), (self.left + w).clamp(0, self.shape[2] + w)
        views = F.pad(image, (w, w, h, h)).unfold(2, h, 1).unfold(3, w, 1)
        if len(self.top) == 1:
            return views[:, :, top[0], left[0]].transpose(1, 2).contiguous().unsqueeze(1)
        # neurons of all channels are at the same places: cut one window at each place, then select
        columns = views.shape[3]
        places, which = (top * columns + left).unique(return_inverse=True)
        windows = views[:, :, places // columns, places % columns].transpose(1, 2).flatten(0, 1)
        first = torch.arange(len(image), device=image.device).unsqueeze(1) * len(places)
        picked = windows.flatten(1).index_select(0, (first + which).flatten())
        return picked.view(len(image), 1, self.top.shape[1], *windows.shape[1:])

    def between(self, lines: Lines) -> WindowForm:
        a, constant, upper = relaxed_form(self.coefficients, lines, self.constant, self.upper_constant, _inner_product)
        return replace(self, coefficients=a, constant=constant, upper_constant=upper, clean=True)

    def lowered(self, each: Tensor, unit: float, floor: Tensor) -> WindowForm:
        lost = _inner_product(self.coefficients.detach().abs(), self.view(each)) + floor.unsqueeze(-1)
        constant, upper = outward(self.constant, self.upper_constant, lost, unit)
        return replace(self, constant=constant, upper_constant=upper)

    def minimum(self, region: Region) -> Tensor:
        return self._extremes(region)[0] if isinstance(region, Box) else self.dense().minimum(region)

    def maximum(self, region: Region) -> Tensor:
        return self._extremes(region)[1] if isinstance(region, Box) else self.dense().maximum(region)

    def _extremes(self, box: Box) -> tuple[Tensor, Tensor]:
        middle = _inner_product(self.coefficients, self.view(box.center))
        spread = _inner_product(self.coefficients.abs(), self.view(box.radius))
        upper = self.constant if self.upper_constant is None else self.upper_constant
        return (middle - spread + self.constant).flatten(1), (middle + spread + upper).flatten(1)

    def inside(self) -> WindowForm:
        if self.clean:
            return self
        rows, columns = _inside(self.top, self.size[0], self.shape[1]), _inside(self.left, self.size[1], self.shape[2])
        inside = (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(1).unsqueeze(3)
        return replace(self, coefficients=self.coefficients * inside, clean=True)

    def with_upper_constant(self) -> WindowForm:
        return replace(self, upper_constant=self.constant)

    @property
    def width(self) -> int:
        return self.coefficients[0, 0, 0].numel()

    def without_constant(self) -> WindowForm:
        return replace(self, constant=0.0, upper_constant=None if self.upper_constant is None else 0.0)

    def dense(self) -> LinearForm:
        (h, w), (channels, height, width) = self.size, self.shape
        batch, forms, count = max(len(self.coefficients), len(self.top)), self.coefficients.shape[1], self.top.shape[1]
        rows = (self.top + h).clamp(0, height + h).unsqueeze(-1) + torch.arange(h, device=self.top.device)
        columns = (self.left + w).clamp(0, width + w).unsqueeze(-1) + torch.arange(w, device=self.top.device)
        place = (rows.unsqueeze(-1) * (width + 2 * w) + columns.unsqueeze(-2)).flatten(2)  # [B, P, h w]
        full = (batch, forms, count, channels, h * w)
        canvas = self.coefficients.new_zeros(*full[:4], (height + 2 * h) * (width + 2 * w))
        canvas = canvas.scatter(4, place[:, None, :, None].expand(full), self.coefficients.flatten(4).expand(full))
        whole = canvas.view(batch, forms * count, channels, height + 2 * h, width + 2 * w)

        def every(constant: Tensor | float) -> Tensor | float:
            # samples with the same coefficients may have different constants
            return (
                constant.expand(max(batch, len(constant)), forms, count).flatten(1)
                if isinstance(constant, Tensor)
                else constant
            )

        upper = None if self.upper_constant is None else every(self.upper_constant)
        return LinearForm(whole[..., h : h + height, w : w + width], every(self.constant), upper)


def _inner_product(a: Tensor, offset: Tensor) -> Tensor:
    """<a, offset> for each form: [B, G, P, *window] and [B, 1 or G, P, *window] to [B, G, P], sizes of 1 broadcast."""
    return torch.einsum("bgpk,bhpk->bgp" if offset.shape[1] == 1 else "bgpk,bgpk->bgp", a.flatten(3), offset.flatten(3))


def _inside(start: Tensor, size: int, limit: int) -> Tensor:
    """Whether each of the `size` rows that begin at `start` lies in the image: [B, P] to [B, P, size]."""
    place = start.unsqueeze(-1) + torch.arange(size, device=start.device)
    return (place >= 0) & (place < limit)
