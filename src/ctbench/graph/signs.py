"""Which values of a graph are known to have no negative entry, whatever the input and the weights are.

In exact arithmetic |x| >= 0, but bounds that are rounded outward reach below 0, where a root is not defined. So a power
that takes only numbers >= 0 reads such a value through `Known`.
"""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor

from ctbench.graph.builder import Builder, Value
from ctbench.graph.ops import (
    Abs,
    Add,
    AlongAxis,
    CappedExp,
    Clamp,
    ClampEach,
    Concat,
    Dropout,
    Exp,
    Given,
    Heaviside,
    Known,
    Max,
    MeanOfRows,
    Op,
    Positive,
    Power,
    Product,
    ReLU,
    Reshape,
    Scale,
    Shift,
    Sigmoid,
    Softplus,
)

_ALWAYS = (Abs, CappedExp, Exp, Heaviside, ReLU, Sigmoid, Softplus)
_KEEPING = (Add, Concat, Dropout, Max, MeanOfRows, Positive, Product, Reshape)  # if no input has a negative entry
_WEIGHTED = (AlongAxis, Scale, Shift)  # likewise, if none of their own numbers is negative


def has_no_negative(build: Builder, value: Value) -> bool:
    """Whether all entries of a value are known to be >= 0, where they are defined."""
    waiting, seen = [value.index], set[int]()
    while waiting:
        node = build.nodes[waiting.pop()]
        if _is_always(node.op):
            continue
        if not isinstance(node.op, (*_KEEPING, Power)) and not (isinstance(node.op, _WEIGHTED) and _numbers(node.op)):
            return False
        waiting += [source for source in node.inputs if source not in seen]
        seen.update(node.inputs)
    return True


def _is_always(op: Op) -> bool:
    """Whether an op gives no negative number for any input that it is defined for."""
    if isinstance(op, Known | Clamp):
        return op.low >= 0
    if isinstance(op, Power):
        return not op.whole or op.exponent % 2 == 0
    return isinstance(op, _ALWAYS) or (isinstance(op, Given | ClampEach) and _numbers(op))


def _numbers(op: Op) -> bool:
    """Whether the numbers of an op are >= 0, and training does not change them."""
    tensors = (getattr(op, field.name) for field in fields(op))  # type: ignore[arg-type]
    return all(not each.requires_grad and bool((each >= 0).all()) for each in tensors if isinstance(each, Tensor))
