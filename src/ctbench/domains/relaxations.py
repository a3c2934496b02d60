"""The free slope of a relaxation: which of the admissible lines lies below an unstable neuron.

A rule maps the pre-activation bounds l < 0 < u to a slope in [0, 1]. Those of ReLU:

    adaptive   1 if u > -l else 0        the smaller area (Zhang et al. 2018, CROWN)
    parallel   u / (u - l)               parallel to the chord (Weng et al. 2018, Fast-Lin; the COAP dual)
    zero, one  0, 1
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SlopeRule = Callable[[Tensor, Tensor], Tensor]


def adaptive(lower: Tensor, upper: Tensor) -> Tensor:
    """The slope whose line leaves the smaller area; all rules take and give [B, *node]."""
    return (upper > -lower).to(lower.dtype)


def parallel(lower: Tensor, upper: Tensor) -> Tensor:
    """The slope of the chord."""
    unstable = (lower < 0) & (upper > 0)
    # only unstable neurons take the slope; dividing by the width of the others could be 0/0
    return upper / torch.where(unstable, upper - lower, 1.0)


def zero(lower: Tensor, upper: Tensor) -> Tensor:
    """The flat line."""
    return torch.zeros_like(lower)


def one(lower: Tensor, upper: Tensor) -> Tensor:
    """The line of an active neuron."""
    return torch.ones_like(lower)
