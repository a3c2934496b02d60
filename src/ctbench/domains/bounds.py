"""Bounds of any torch module, in one call.

lower, upper = bounds(model, x, eps=0.1, domain="crown")
margins = margin_bounds(model, x, y, eps=0.1)          # positive everywhere but at y: proved robust
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctbench.domains import domain as find_domain
from ctbench.domains.linear_form import every_output
from ctbench.graph import Graph, freeze, trace
from ctbench.regions import Linf, Threat
from ctbench.specification import check_labels, margin_rows, wrong_classes


class LogitBounds(NamedTuple):
    lower: Tensor  # [B, K]
    upper: Tensor  # [B, K]


def bounds(
    model: nn.Module,
    x: Tensor,
    *,
    eps: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
    domain: str = "crown",
) -> LogitBounds:
    """Bounds of the logits over the linf ball of radius eps around each input.

    The network is taken as at test time (running statistics), whatever mode it is in. Gradients reach its
    parameters and x. Bounds are computed in the network's precision, and rounded like everything in it: for bounds to
    rely on, give a network in double precision.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [B, *shape].
        eps: the radius, in [0, 1] pixel space.
        clip: the range of the data, which the ball does not leave; None for no range.
        domain: "interval", "crown-ibp" or "crown".

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: an eps, input or domain that cannot be; says which.
    """
    threat, method = Linf(eps=eps, clip=clip), find_domain(domain)
    graph, x, logits = _prepared(model, x, threat)
    spec = every_output(len(x), graph.classes, like=logits)
    both = method.lower_bounds(graph, threat.region(x), torch.cat([spec, -spec], dim=1))
    return LogitBounds(both[:, : graph.classes], -both[:, graph.classes :])


def margin_bounds(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
    domain: str = "crown",
) -> Tensor:
    """Lower bounds of the margins z_y - z_k over the linf ball, [B, K], 0 at k = y. Arguments as in `bounds`.

    Raises:
        ValueError: also for labels y ([B], integers) that the network has no class for.
    """
    threat, method = Linf(eps=eps, clip=clip), find_domain(domain)
    graph, x, logits = _prepared(model, x, threat)
    check_labels(y, graph.classes)
    y = y.long()
    spec = margin_rows(y, graph.classes, dtype=logits.dtype)
    rows = method.lower_bounds(graph, threat.region(x), spec)
    return logits.new_zeros(len(x), graph.classes).scatter(1, wrong_classes(y, graph.classes), rows)


def _prepared(model: nn.Module, x: Tensor, threat: Threat) -> tuple[Graph, Tensor, Tensor]:
    """The frozen graph, the inputs in its precision, and the logits."""
    threat.check(x)
    graph = trace(model, tuple(x.shape[1:]))
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), x)
    x = x.to(like)
    graph, logits = freeze(graph, x)
    return graph, x, logits
