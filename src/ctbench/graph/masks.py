"""Values with entries of -inf: scores that a constant mask keeps out of a softmax.

    scores.masked_fill(mask, -torch.inf),   scores + mask,   torch.where(keep, scores, -torch.inf)

A graph has finite values, so the mask stays apart, in `Masked`. The weights of masked entries are exactly 0.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import compositions as compose
from ctbench.graph.builder import Builder, Constant, Masked, Value
from ctbench.graph.constants import is_in_place
from ctbench.graph.exactness import parts
from ctbench.graph.functions import MOVES
from ctbench.graph.ops import UnsupportedLayerError

_SOFTMAX = {torch.softmax, F.softmax, "softmax"}
_SUMS = {torch.add, operator.add, "add", torch.where, "where", torch.masked_fill, "masked_fill"}
_FACTORS = {torch.mul, operator.mul, "mul", torch.div, operator.truediv, "div"}
_CASTS = {"to", "type_as", "float", "double"}
_SIZES = {"size", "dim", getattr}
MASKS = _SUMS | _CASTS | _SIZES | MOVES | {F.scaled_dot_product_attention}  # what takes constants with entries of -inf
TAKING = _SOFTMAX | _SUMS | _FACTORS | _CASTS | _SIZES  # what takes values with entries of -inf
MASKED_LAYERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def check_taken(path: str, name: str, target: Any, args: Any, kwargs: Any) -> None:
    """Raise an error if a function does not take infinite entries of its arguments."""
    target = target.removesuffix("_") if isinstance(target, str) and is_in_place(target) else target
    for each in parts([args, kwargs]):
        if isinstance(each, Masked) and target not in TAKING:
            raise UnsupportedLayerError(
                f"'{path}' ({name}) takes values some of which are -inf, because of a mask: only a softmax, sums, and "
                f"multiples by positive numbers take them; apply the mask right before the softmax"
            )
        if isinstance(each, Constant):
            _check_entries(each, target in MASKS)


def check_layer(module: nn.Module, arguments: Any) -> None:
    """Raise ValueError if a layer does not take infinite entries of the constants that it is called with."""
    for each in parts(arguments):
        if isinstance(each, Constant):
            _check_entries(each, isinstance(module, MASKED_LAYERS))


def _check_entries(constant: Constant, may_mask: bool) -> None:
    tensor = constant.tensor
    if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
        return
    if not may_mask or bool((tensor.isnan() | (tensor == math.inf)).any()):
        raise ValueError(f"{constant.name} holds NaN or infinite values")


def is_mask(value: Any) -> bool:
    """Whether an operand is a constant with entries of -inf."""
    return isinstance(value, Constant) and value.tensor.is_floating_point() and bool((value.tensor == -math.inf).any())


def without(build: Builder, path: str, x: Value | Masked, keep: Constant) -> Value | Masked:
    """The value with -inf where a constant, which broadcasts to it, is false."""
    value, tensor = (x.value if isinstance(x, Masked) else x), keep.tensor
    rank = len(value.shape)
    if tensor.dim() == rank + 1 and len(tensor) == 1:
        tensor = tensor[0]
    try:
        shape = tuple(torch.broadcast_shapes(value.shape, tensor.shape))
    except RuntimeError:
        shape = ()
    if len(shape) != rank:
        raise UnsupportedLayerError(
            f"'{path}' masks values of shape {value.shape} by {keep.name} of shape {tuple(tensor.shape)}: it must "
            f"broadcast to the values, without the batch"
        )
    seen = tensor.bool().expand(shape)
    if isinstance(x, Masked):
        seen = seen & x.keep.expand(shape)
    elif bool(seen.all()):
        return x
    return Masked(compose.masked(build, path, compose.expanded(build, path, value, shape), seen), seen)


def split(build: Builder, mask: Constant) -> tuple[Constant, Constant]:
    """The finite entries of a constant, with 0 in the others, and which of its entries are finite."""
    keep = mask.tensor != -math.inf
    finite = torch.where(keep, build.following(mask.tensor), 0.0)
    return Constant(finite, mask.name), Constant(keep, mask.name)


def check_rows(path: str, keep: Tensor, dim: int) -> None:
    """Raise UnsupportedLayerError if a softmax along an axis has a row in which no entry is kept."""
    if not bool(keep.any(dim).all()):
        raise UnsupportedLayerError(
            f"'{path}' is a softmax of rows in which the mask leaves no entry, which torch makes NaN: leave an entry "
            f"in each row"
        )
