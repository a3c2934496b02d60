"""Whether torch computes constants without rounding: verdicts hold in the exact arithmetic of stored weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# functions that choose, compare, order or move entries, or change signs
_CHOOSING = {
    *("abs", "absolute", "neg", "negative", "sign", "maximum", "minimum", "max", "min", "amax", "amin", "clamp"),
    *("clamp_min", "clamp_max", "relu", "where", "masked_fill", "tril", "triu", "floor", "ceil", "trunc", "round"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or", "logical_xor", "isfinite"),
    *("and_", "or_", "xor", "invert", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"),
    *("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "argmax", "argmin", "argsort"),
    *("sort", "topk", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "repeat", "tile", "flip", "roll"),
    *("repeat_interleave", "diag", "diagonal", "contiguous", "clone", "detach", "bool", "long", "int", "one_hot"),
    *("gather", "take_along_dim", "index_select", "meshgrid", "is_floating_point", "numel", "nonzero", "item"),
}
_SPLITTER = 2.0**27 + 1  # of 53 bits into halves (Veltkamp; Dekker 1971)
_LARGEST, _SMALLEST = 2.0**480, 2.0**-480  # of factors whose halves and products neither overflow nor underflow


def is_exact(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Whether a function of the name `name`, called with these tensors and numbers, has not rounded its result.

    Sums, differences and products in double precision are checked entry by entry, by their rounding errors.
    """
    if name in _CHOOSING or not any(map(_is_rounded_type, result if isinstance(result, tuple | list) else [result])):
        return True
    if kwargs or len(args) != 2 or not all(map(_is_double, (*args, result))):
        return False
    error = _ERRORS.get(name)
    operands = (torch.as_tensor(each, dtype=torch.float64, device=result.device) for each in args)
    return error is not None and bool((error(*operands) == 0).all())


def _is_rounded_type(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point())


def _is_double(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.dtype == torch.float64)


def _error_of_sum(first: Tensor, second: Tensor) -> Tensor:
    """The rounding error of a sum (Knuth's TwoSum); NaN if it overflows."""
    total = first + second
    part = total - first
    return (first - (total - part)) + (second - part)


def _error_of_product(first: Tensor, second: Tensor) -> Tensor:
    """The rounding error of a product (Dekker); NaN where it may not be exact itself."""
    product = first * second
    (a, b), (c, d) = _halves(first), _halves(second)
    error = b * d - (((product - a * c) - b * c) - a * d)
    is_safe = (first.abs() < _LARGEST) & (second.abs() < _LARGEST) & ((product == 0) | (product.abs() > _SMALLEST))
    is_zero = (first == 0) | (second == 0)
    return torch.where(is_zero, 0.0, torch.where(is_safe & (product != 0), error, torch.nan))


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    scaled = _SPLITTER * x
    upper = scaled - (scaled - x)
    return upper, x - upper


_ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": _error_of_sum,
    "sub": lambda first, second: _error_of_sum(first, -second),
    "rsub": lambda first, second: _error_of_sum(second, -first),
    "mul": _error_of_product,
}
