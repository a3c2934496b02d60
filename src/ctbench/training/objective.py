"""The loss of a step and its gradient, in one part or in several.

    loss = (1 - w) CE(clean) + w mean(method's loss) + shi (1 - eps/train_eps) R + l1 sum |W|

There is one clean pass, on the whole batch, which computes the statistics of the batch norms. The attacks, the bounds
and the loss of the method follow for one part of the batch after the other. They use a copy of the frozen graph in
which every tensor from the clean pass is a leaf. The gradients of these leaves go back through the clean pass once, at
the end. So the gradient is the same for any number of parts, and needs the memory of one part. Only R, which is not a
mean over samples, is computed for each part, and averaged over the parts.

The shares of several processes are also parts, except that the clean pass already shares the statistics. The gradient
of a share is weighted, and the sum over the processes is the gradient of the batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.domains import interval
from ctbench.graph import Graph, folded
from ctbench.methods import regularizers
from ctbench.methods.base import Batch, RobustLoss
from ctbench.training.execution import PLAIN, Execution, at_least_float32
from ctbench.training.monitoring import Means, bound_statistics
from ctbench.training.recipe import StepSettings

LEAST_RADIUS = 1e-6  # the smallest radius of boxes for the regulariser of Shi et al., while eps is about 0


def accumulate_gradients(
    model: nn.Module,
    net: Graph,
    batch: Batch,
    settings: StepSettings,
    *,
    weight: float = 1.0,
    execution: Execution = PLAIN,
) -> dict[str, Tensor]:
    """Add the gradient of the loss of a batch to the gradients of the parameters; returns means over the batch.

    Args:
        model: the network, for the norm of its weights.
        net, batch: the results of the clean pass, with gradients.
        settings: the values of the recipe for this step.
        weight: a factor of the gradient, which does not apply to the means.
        execution: how the method is computed.
    """
    recipe = settings.recipe
    natural = F.cross_entropy(batch.logits, batch.y)
    whole = natural.new_zeros(())
    if recipe.robust_weight < 1:
        whole = whole + (1 - recipe.robust_weight) * natural
    if recipe.l1:
        whole = whole + recipe.l1 * regularizers.l1(model)
    means = Means()
    right = (batch.logits.argmax(1) == batch.y).double().mean()
    means.add(1.0, {"natural_loss": natural, "natural_accuracy": right})
    cut_net, cut_batch, cut_tensors = cut(net, batch)
    for part in torch.arange(len(batch.y), device=batch.y.device).chunk(recipe.accumulate):
        some = _take(cut_batch, part)
        with execution.autocast(batch.x.device):
            one = folded(cut_net, len(part))  # once per part: the gradient of the part goes back through it
            robust = execution.robust_loss(settings.method, one, some)
            if not isinstance(robust, RobustLoss):
                raise ValueError(
                    f"the method {settings.method.name!r} returned a {type(robust).__name__}: it must return a "
                    f"RobustLoss"
                )
            robust_loss = at_least_float32(robust.per_sample).mean()
            loss = recipe.robust_weight * robust_loss + _shi(one, some, robust, settings)
        share = len(part) / len(batch.y)
        (weight * share * loss).backward()
        measured = {"robust_loss": robust_loss, "robust_accuracy": robust.correct.double().mean()}
        with execution.autocast(batch.x.device):
            measured |= bound_statistics(one, some, robust)
        means.add(share, {"loss": loss} | measured)
    ends = [(tensor, leaf.grad) for tensor, leaf in cut_tensors if leaf.grad is not None]
    if whole.requires_grad:
        ends.append((whole, torch.full_like(whole, weight)))
    torch.autograd.backward([tensor for tensor, _ in ends], [gradient for _, gradient in ends])
    total = means.values()
    return total | {"loss": total["loss"] + whole.detach()}


def cut(net: Graph, batch: Batch) -> tuple[Graph, Batch, list[tuple[Tensor, Tensor]]]:
    """The graph and batch with a leaf instead of each tensor that depends on parameters; and pairs (tensor, leaf)."""
    cut_tensors: list[tuple[Tensor, Tensor]] = []

    def leaf(tensor: Tensor) -> Tensor:
        if tensor.grad_fn is None:  # a parameter or a constant
            return tensor
        cut_tensors.append((tensor, tensor.detach().requires_grad_()))
        return cut_tensors[-1][1]

    return net.map(leaf), replace(batch, logits=leaf(batch.logits)), cut_tensors


def _take(batch: Batch, part: Tensor) -> Batch:
    """Some samples of a batch, by their positions."""
    if len(part) == len(batch.y):
        return batch
    whole = batch.region_at
    return replace(
        batch,
        x=batch.x[part],
        y=batch.y[part],
        region=batch.region.take(part),
        logits=batch.logits[part],
        region_at=None if whole is None else lambda scale: whole(scale).take(part),
    )


def _shi(net: Graph, batch: Batch, robust: RobustLoss, settings: StepSettings) -> Tensor | float:
    recipe = settings.recipe
    if not recipe.shi or not settings.growing:
        return 0.0
    if robust.boxes is None:
        raise ValueError(
            f"shi is {recipe.shi} but the method {settings.method.name!r} computes no interval bounds: set shi=0"
        )
    boxes = robust.boxes
    if settings.eps < LEAST_RADIUS:
        boxes = interval.boxes(net, replace(recipe.threat, eps=LEAST_RADIUS).region(batch.x))
    return recipe.shi * (1 - settings.eps / max(recipe.final_eps, LEAST_RADIUS)) * regularizers.shi(net, boxes)
