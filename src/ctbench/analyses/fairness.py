"""How much worse than the average is the worst class? The accuracy discrepancy.

    discrepancy = (max_k R^k - R) / (1 - R)      R the error on all samples, R^k the error on the samples of class k

It is 0 if all classes have the same error, and 1 if one class has no correct sample. De Bartolomeis et al., "Certified
defences can hurt generalisation", Eq. (2), after Sanyal et al. 2022, "How unfair is private learning?". With errors
under attack, or samples that are not certified, it is the discrepancy in robust accuracy.

    discrepancy(net(x).argmax(1) != y, y)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctbench.results import fairness


def discrepancy(errors: Tensor, labels: Tensor) -> float:
    """The discrepancy of the classes in `labels`; classes without samples are ignored.

    If all samples are wrong, the quotient is 0 / 0. The result is then 1, as for any R < 1 if one class has no correct
    sample.

    Args:
        errors: whether each sample is wrong, [N] bool.
        labels: the class of each sample, [N] integers.

    Raises:
        ValueError: there are no samples, they do not have one label each, or the errors are not bool.
    """
    if errors.dtype != torch.bool or errors.dim() != 1 or errors.shape != labels.shape or not len(errors):
        raise ValueError(
            f"the errors are {errors.dtype} of shape {list(errors.shape)}, the labels have shape "
            f"{list(labels.shape)}: give one bool (wrong or not) and one label per sample, for at least one sample"
        )
    return fairness.discrepancy(errors.tolist(), labels.tolist())
