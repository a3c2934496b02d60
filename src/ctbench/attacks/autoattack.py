"""AutoAttack: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", computed by the package pyautoattack: pip install 'ctbench[attacks]'.

    standard   APGD on the cross-entropy, targeted APGD on the DLR, targeted FAB, Square
    plus       AA+: APGD on the cross-entropy (5 restarts), APGD on the DLR (5), FAB (5), Square, targeted APGD on the
               DLR, targeted FAB

Each part attacks the samples that withstood the parts before it. Square makes 5000 queries, the other parts 100 steps.
The targets are the 9 wrong classes with the largest logits, or all wrong classes if there are fewer. AA+ is the
evaluation of "How robust accuracy suffers from certified training with convex relaxations", App. A.1.

    AutoAttack(version="plus")(model, x, y, L2(0.5))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from ctbench.regions import Threat
from ctbench.specification import check_labels

PARTS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
}
UNTARGETED = ("apgd-ce", "apgd-dlr", "fab", "square")
NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The parts of AutoAttack, one after the other. It needs logits and labels, so it is not an `Attack`.

    The package computes in single precision. Its random numbers come from `seed` and do not change the state of torch's
    generators.

    Args:
        version: "standard", or "plus" for AA+.
        batch_size: the number of samples per batch.
        seed: the seed of all random numbers.
        only: run only this part, by the name in the package; None runs all parts.
    """

    version: Literal["standard", "plus"] = "standard"
    batch_size: int = 250
    seed: int = 0
    only: str | None = None

    def __post_init__(self) -> None:
        if self.version not in PARTS:
            raise ValueError(f"version is {self.version!r}: it must be one of {', '.join(PARTS)}")
        if self.only not in (None, *PARTS["plus"]):
            raise ValueError(f"only is {self.only!r}: it must be one of {', '.join(PARTS['plus'])}, or None for all")

    def parts(self, shape: torch.Size, classes: int, norm: str) -> list[str]:
        """The parts that run on inputs of a shape, by their names in the package.

        With fewer than four classes only the untargeted parts run, with two classes also no DLR. Square runs only on
        images, and in the l2 norm only if its tiles fit into the image.
        """
        parts = PARTS[self.version] if classes >= 4 else UNTARGETED
        impossible = set() if classes >= 3 else {"apgd-dlr"}
        if len(shape) != 3 or (norm == "l2" and not _tiled(*shape[1:])):
            impossible.add("square")
        return [part for part in parts if part not in impossible and self.only in (None, part)]

    def require(self, threat: Threat) -> None:
        """Raise ValueError unless AutoAttack supports the threat model and pyautoattack is installed."""
        if threat.name not in NORMS:
            raise ValueError(f"norm is {threat.name!r}: AutoAttack is for {' and '.join(NORMS)}")
        if not isinstance(threat.eps, Real):
            raise ValueError("eps has a radius for each feature: AutoAttack takes one number, other attacks take both")
        _package()

    def __call__(self, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """A point of the region for each sample, [B, *shape]; x itself, in single precision, if no part succeeded.

        Points are projected onto the region in the precision of x. The caller has to test whether they are
        misclassified, in the precision that counts.

        Args:
            net: inputs [N, *shape] in the type of x to logits [N, K], the same at every call: a network in eval mode.
            x: the clean inputs, [B, *shape], in [0, 1].
            y: the labels, [B].
            threat: `Linf` or `L2`. The data range is [0, 1], whatever its `clip` is.

        Raises:
            ValueError: pyautoattack is not installed, the threat model is not supported, or inputs or labels are out
                of range.
        """
        self.require(threat)
        threat = replace(threat, clip=(0.0, 1.0))
        threat.check(x)
        with torch.no_grad():
            classes = net(x[:1]).shape[1]
        check_labels(y, classes)

        def logits(points: Tensor) -> Tensor:
            return net(points.to(x.dtype)).float()

        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            package = _package().AutoAttack(
                lambda points: _InputsOnly.apply(points, logits),  # type: ignore[no-untyped-call]
                norm=NORMS[threat.name],
                eps=threat.eps,
                version=self.version,
                seed=self.seed,
                device=x.device,
            )
            package.attacks_to_run = self.parts(x.shape[1:], classes, threat.name)
            package.apgd_targeted.n_target_classes = package.fab.n_target_classes = min(9, classes - 1)
            # the package takes views, for which the strides of a transposed image, or of channels last, do not fit
            clean = x.float().contiguous()
            points, _ = package.run_standard_evaluation(clean, y.long(), batch_size=self.batch_size)
        return threat.region(x).project(points.to(x.dtype))


def _package() -> Any:
    try:
        return import_module("pyautoattack")
    except ImportError as error:
        raise ValueError(
            f"AutoAttack is not there ({error}): pip install 'ctbench[attacks]', or use APGD, which needs no package"
        ) from None


def _tiled(height: int, width: int) -> bool:
    """Whether the tiles of Square's first move in the l2 norm fit into the image. Their side is height // 5."""
    tile = height // 5
    if tile < 2:
        return tile == 1
    # 14 x 14: seven tiles of 2 from the third row on would need 16 rows, and the package fails
    first = (height - 5 * tile) // 2
    return all(first + side // tile * tile <= side for side in (height, width))


class _InputsOnly(torch.autograd.Function):
    """Logits with a gradient only for the points: FAB calls `backward`, which would add to the weights' gradients."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, net: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            ctx.points = points.detach().requires_grad_(ctx.needs_input_grad[0])
            ctx.logits = net(ctx.points)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = torch.autograd.grad(ctx.logits, ctx.points, gradient, retain_graph=True)
        return result.contiguous(), None
