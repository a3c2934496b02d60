"""The free slopes of a relaxation: rules that choose lines around an activation.

A rule maps an op and its pre-activation bounds l < u to the slopes of the lower and of the upper line, [B, *node]; the
op adds the tightest offsets. With f' in [least, greatest] on [l, u], which is [0, 1] for an unstable ReLU:

    adaptive   the smallest area; for ReLU 1 if u > -l else 0     (Zhang et al. 2018, CROWN)
    parallel   both lines parallel to the chord                   (Weng et al. 2018, Fast-Lin; the COAP dual)
    zero, one  the least, the greatest slope below                (Zhang et al. 2018)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ctbench.graph import Elementwise

SlopeRule = Callable[[Elementwise, Tensor, Tensor], tuple[Tensor, Tensor]]


def check_rule(slope: SlopeRule) -> None:
    """Raise ValueError unless the value is a rule; the name of a rule is not one."""
    if not callable(slope):
        raise ValueError(f"slope is {slope!r}: give a rule, e.g. ctbench.domains.relaxations.parallel, not its name")


def rule_name(slope: SlopeRule) -> str:
    """The name of a rule, for messages and records; a lambda has no name, and shows its address."""
    name = getattr(slope, "__qualname__", "<")
    return repr(slope) if "<" in name else name


def adaptive(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The lines with the smallest area between them."""
    return op.tightest(lower, upper)


def parallel(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Both lines have the slope of the chord."""
    chord = op.chord(lower, upper)
    return chord, chord


def zero(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The lower line has the least slope: 0 for an unstable ReLU."""
    return op.slopes(lower, upper)[0], op.tightest(lower, upper)[1]


def one(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The lower line has the greatest slope: 1 for an unstable ReLU."""
    return op.slopes(lower, upper)[1], op.tightest(lower, upper)[1]
