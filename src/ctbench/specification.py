"""Output specifications as linear forms, and the loss computed from their lower bounds.

A classifier is right about x' if every margin z_y - z_k (k != y) is positive. Lower bounds m_k of the margins over a
region give an upper bound on the cross-entropy there (Gowal et al. 2018, section 3):

    max over x' of CE(z(x'), y) <= log(1 + sum_k exp(-m_k))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-12  # the divisor of the DLR losses if the largest logits are equal


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


def violation(logits: Tensor, y: Tensor) -> Tensor:
    """How far the smallest margin is below zero, [B, K] and [B] to [B]: positive where misclassified."""
    return -margins(logits, y).amin(1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each sample, [B, K] and [B] to [B]."""
    return F.cross_entropy(logits, y, reduction="none")


def robust_cross_entropy(margins: Tensor) -> Tensor:
    """The cross-entropy of margins [B, K-1], or its upper bound if they are lower bounds of the margins, [B]."""
    return torch.cat([margins.new_zeros(len(margins), 1), -margins], dim=1).logsumexp(dim=1)


def check_samples(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x holds inputs, [N, *shape], and y one label each."""
    if any(not isinstance(tensor, Tensor) or not tensor.dim() for tensor in (x, y)):
        raise ValueError(
            f"x is {_kind(x)} and y {_kind(y)}: give tensors of N inputs, [N, *shape], and of N labels, [N]"
        )
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"there are {len(x)} inputs of shape {list(x.shape[1:])} and {len(y)} labels: "
            f"give one label per input, at least one"
        )


def _kind(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def check_labels(y: Tensor, classes: int) -> None:
    """Raise ValueError unless there are at least two classes, and the labels [B] are integers in 0..classes-1."""
    if classes < 2:
        raise ValueError(
            f"the network has {classes} output: a margin needs two classes or more; for one score z, use "
            f"ctbench.networks.TwoClasses(model), which returns [0, z], or state a VNN-LIB property"
        )
    if not isinstance(y, Tensor):
        raise ValueError(f"the labels are a {type(y).__name__}: give a torch tensor of integers, [B]")
    if y.dim() != 1:
        raise ValueError(f"labels must be a vector, one label per sample; these have shape {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels must be integers, these are {y.dtype}")
    if y.is_meta:
        raise ValueError("the labels are on the device 'meta', where tensors have no values: move them to another")
    wrong = ((y < 0) | (y >= classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(
            f"label {int(y[index])} of sample {index} is out of range: the network has {classes} classes, "
            f"so labels are 0..{classes - 1}"
        )


def cross_entropy_at(net: Callable[[Tensor], Tensor], y: Tensor) -> Callable[[Tensor], Tensor]:
    """The cross-entropy as the objective of an attack: points [R, B, *shape] to losses [R, B]."""
    return _at_points(net, cross_entropy, y)


def violation_at(net: Callable[[Tensor], Tensor], y: Tensor) -> Callable[[Tensor], Tensor]:
    """How far the smallest margin is below zero: points [R, B, *shape] to [R, B], positive where misclassified."""
    return _at_points(net, violation, y)


def dlr_at(net: Callable[[Tensor], Tensor], y: Tensor) -> Callable[[Tensor], Tensor]:
    """The difference of logits ratio: points [R, B, *shape] to [R, B], positive where misclassified.

    Croce & Hein 2020, section 4, with z_(1) >= z_(2) >= ... the sorted logits:

        DLR = -(z_y - max over k != y of z_k) / (z_(1) - z_(3))

    It is invariant to a shift of the logits and to a positive factor. It needs three classes; with fewer classes it is
    -(z_y - z_k).
    """

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        lead = violation(logits, y)
        if logits.shape[1] < 3:
            return lead
        top = logits.topk(3, dim=1).values
        return lead / (top[:, 0] - top[:, 2] + TIE)

    return _at_points(net, loss, y)


def targeted_dlr_at(net: Callable[[Tensor], Tensor], y: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    """The targeted difference of logits ratio: points [R, B, *shape] to [R, B], positive where target beats y.

    Croce & Hein 2020, section 4, with z_(1) >= z_(2) >= ... the sorted logits and k the target, [B]:

        DLR_k = -(z_y - z_k) / (z_(1) - (z_(3) + z_(4)) / 2)

    Raises:
        ValueError: the network has fewer than four classes.
    """

    def loss(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        if logits.shape[1] < 4:
            raise ValueError(
                f"the network has {logits.shape[1]} classes but the targeted DLR loss needs 4 or more: "
                f"use targeted_margin_at"
            )
        top = logits.topk(4, dim=1).values
        return _lead(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TIE)

    return _at_points(net, loss, y, target)


def targeted_margin_at(net: Callable[[Tensor], Tensor], y: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    """z_k - z_y for a target k, [B]: points [R, B, *shape] to [R, B], positive where the target beats y."""
    return _at_points(net, _lead, y, target)


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_target - z_y: [B, K] to [B]."""
    target_and_true = logits.gather(1, torch.stack([target, y], dim=1))
    return target_and_true[:, 0] - target_and_true[:, 1]


def _at_points(
    net: Callable[[Tensor], Tensor], loss: Callable[..., Tensor], *labels: Tensor
) -> Callable[[Tensor], Tensor]:
    """A loss of logits [N, K] and labels, [N] each, as a function of points: [R, B, *shape] to [R, B]."""

    def objective(points: Tensor) -> Tensor:
        logits = net(points.flatten(0, 1))
        return loss(logits, *(label.repeat(len(points)) for label in labels)).view(points.shape[:2])

    return objective
