"""Whether torch computes constants without rounding: verdicts hold in the exact arithmetic of stored weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# functions and methods of torch that choose, compare, order or move entries, or change signs
_CHOOSING = {
    *("abs", "absolute", "neg", "negative", "sign", "maximum", "minimum", "max", "min", "amax", "amin", "clamp"),
    *("clamp_min", "clamp_max", "relu", "where", "masked_fill", "tril", "triu", "floor", "ceil", "trunc", "round"),
    *("sort", "topk", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "repeat", "tile", "flip", "roll"),
    *("repeat_interleave", "diag", "diagonal", "contiguous", "clone", "detach", "gather", "take_along_dim"),
    *("index_select", "meshgrid", "nonzero", "item", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"),
    "new_full",
}
_WHOLE = 2**53  # whole numbers up to here are numbers in double precision
_SPLITTER = 2.0**27 + 1  # of 53 bits into halves (Veltkamp; Dekker 1971)
_LARGEST, _SMALLEST = 2.0**480, 2.0**-480  # of factors whose halves and products neither overflow nor underflow


def is_exact(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Whether torch has computed this without rounding, in double precision. In doubt it has not.

    Functions that only choose numbers are exact, and so are truth values and whole numbers. The rounding errors of
    sums, differences and products are computed entry by entry.

    Args:
        target: a function of torch, or the name of a method.
        args: its arguments, tensors and numbers.
        kwargs: its arguments that were given by name.
        result: what it has returned.
    """
    numbers = [each for each in parts([args, kwargs, result]) if _is_real(each)]
    if not any(map(_is_real, parts(result))):
        return True
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if not (isinstance(target, str) or any(getattr(place, name, None) is target for place in _PLACES)):
        return False  # a function of somebody else
    if not all(map(_is_double, numbers)) or not all(map(_is_small, parts([args, kwargs]))):
        return False
    if name in _CHOOSING:
        return "decimals" not in kwargs
    error = _ERRORS.get(name)
    if error is None or kwargs or len(args) != 2 or not isinstance(result, Tensor):
        return False
    operands = (torch.as_tensor(each, dtype=torch.float64, device=result.device) for each in args)
    return bool((error(*operands) == 0).all())


_PLACES = (torch, F, Tensor, operator)


def parts(value: Any) -> Iterator[Any]:
    """The tensors and numbers in nested tuples, lists and dicts."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from parts(each)
    elif isinstance(value, dict):
        yield from parts(list(value.values()))
    else:
        yield value


def _is_real(value: Any) -> bool:
    """Whether it is no truth value, whole number or setting: a number that may be rounded."""
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return isinstance(value, float | complex)


def _is_double(value: Any) -> bool:
    return value.dtype == torch.float64 if isinstance(value, Tensor) else isinstance(value, float)


def _is_small(value: Any) -> bool:
    """Whether double precision has all whole numbers of a value."""
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex() or bool((value.abs() <= _WHOLE).all())
    return not isinstance(value, int) or abs(value) <= _WHOLE


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
