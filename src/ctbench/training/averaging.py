"""PreciseBN: the running statistics that the final weights deserve.

The statistics of batch norm follow the weights with a lag. For testing they are computed anew over the training set,
as the average of the batches' means and the average of their unbiased variances, every batch counting the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def precise_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by those over the batches; weights stay."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to say: the plain average over all batches
    model.train()
    try:
        for x in batches:
            model(x)
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
