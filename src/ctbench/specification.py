"""What must hold at the output, as linear forms, and the loss made of their lower bounds.

A classifier is right about x' when every margin z_y - z_k (k != y) is positive. Lower bounds m_k of the margins
over a region give an upper bound on the cross-entropy there (Gowal et al. 2018, section 3):

    max over x' of CE(z(x'), y) <= log(1 + sum_k exp(-m_k))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def margin_rows(y: Tensor, classes: int, dtype: torch.dtype | None = None) -> Tensor:
    """The K - 1 margins z_y - z_k as rows over the logits, k != y in ascending order: [B] to [B, K-1, K]."""
    identity = torch.eye(classes, dtype=dtype, device=y.device)
    wrong = wrong_classes(y, classes)
    return identity[y].unsqueeze(1) - identity[wrong]


def wrong_classes(y: Tensor, classes: int) -> Tensor:
    """For each label the other classes, ascending: [B] to [B, K-1]."""
    others = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return others + (others >= y.unsqueeze(1))


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - z_k for k != y, ascending: logits [B, K] to [B, K-1]."""
    true = logits.gather(1, y.unsqueeze(1))
    return true - logits.gather(1, wrong_classes(y, logits.shape[1]))


def robust_cross_entropy(margins: Tensor) -> Tensor:
    """The cross-entropy that margins [B, K-1] (or lower bounds of them) allow, [B]."""
    return torch.cat([margins.new_zeros(len(margins), 1), -margins], dim=1).logsumexp(dim=1)


def check_labels(y: Tensor, classes: int) -> None:
    """Raise ValueError unless there is one label a sample, [B], and each is an integer in 0..classes-1."""
    if not isinstance(y, Tensor):
        raise ValueError(f"the labels are a {type(y).__name__}: give a torch tensor of integers, [B]")
    if y.dim() != 1:
        raise ValueError(f"labels must be a vector, one label a sample; these have shape {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels must be integers, these are {y.dtype}")
    wrong = ((y < 0) | (y >= classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(
            f"label {int(y[index])} of sample {index} is out of range: the network has {classes} classes, "
            f"so labels are 0..{classes - 1}"
        )


def cross_entropy_at(net: Callable[[Tensor], Tensor], y: Tensor) -> Callable[[Tensor], Tensor]:
    """The cross-entropy as an attack wants it: points [R, B, *shape] to losses [R, B]."""

    def objective(points: Tensor) -> Tensor:
        logits = net(points.flatten(0, 1))
        return F.cross_entropy(logits, y.repeat(len(points)), reduction="none").view(points.shape[:2])

    return objective


def violation_at(net: Callable[[Tensor], Tensor], y: Tensor) -> Callable[[Tensor], Tensor]:
    """How far the least margin is below zero: points [R, B, *shape] to [R, B], positive where misclassified."""

    def objective(points: Tensor) -> Tensor:
        logits = net(points.flatten(0, 1))
        return -margins(logits, y.repeat(len(points))).amin(1).view(points.shape[:2])

    return objective
