"""AutoAttack: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", computed by the package pyautoattack: pip install 'ctbench[attacks]'.

    standard   APGD on the cross-entropy, targeted APGD on the DLR, targeted FAB, Square
    plus       AA+: APGD on the cross-entropy (5 restarts), APGD on the DLR (5), FAB (5), Square, targeted APGD on the
               DLR, targeted FAB

Each part attacks the samples that withstood the former ones. Square asks 5000 times, the others take 100 steps, and the
targets are the 9 classes with the greatest logits, or all others where these are fewer. AA+ is the evaluation of "How
robust accuracy suffers from certified training with convex relaxations", App. A.1.

    AutoAttack(version="plus")(model, x, y, eps=0.5, norm="l2")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from ctbench.regions import threat
from ctbench.specification import check_labels

PARTS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
}
UNTARGETED = ("apgd-ce", "apgd-dlr", "fab", "square")
NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The parts of AutoAttack one after the other. It asks for logits and labels, so it is no `Attack`.

    The package computes in single precision; its random numbers come from the seed and leave torch's as they are.

    Args:
        version: "standard", or "plus" for AA+.
        batch_size: how many samples it takes at once.
        seed: of all random numbers.
        only: the one part to run, by the package's name; None for all.
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
        """What is run on inputs of a shape, in the package's names.

        The untargeted parts alone for fewer than four classes, without the DLR for two; and Square only where it works:
        for images, in the l2 norm only of sizes that its tiles fit into.
        """
        parts = PARTS[self.version] if classes >= 4 else UNTARGETED
        impossible = set() if classes >= 3 else {"apgd-dlr"}
        if len(shape) != 3 or (norm == "l2" and not _tiled(*shape[1:])):
            impossible.add("square")
        return [part for part in parts if part not in impossible and self.only in (None, part)]

    def require(self, norm: str) -> None:
        """Raise ValueError unless the norm is one that it is for, and pyautoattack is installed."""
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}: AutoAttack is for {' and '.join(NORMS)}")
        _package()

    def __call__(self, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, eps: float, norm: str) -> Tensor:
        """A point of the region for each sample, [B, *shape]; x itself, in single precision, where no part succeeded.

        Points are projected onto the region in the precision of x. Whether they are misclassified is for the caller to
        see, in whatever precision counts.

        Args:
            net: inputs [N, *shape] in the type of x to logits [N, K], the same at every call: a network at test time.
            x: the clean inputs, [B, *shape], in [0, 1].
            y: the labels, [B].
            eps: the radius.
            norm: "linf" or "l2".

        Raises:
            ValueError: pyautoattack is not installed, the norm is another one, or inputs or labels are out of range.
        """
        self.require(norm)
        model = threat(norm, eps)
        model.check(x)
        with torch.no_grad():
            classes = net(x[:1]).shape[1]
        check_labels(y, classes)

        def logits(points: Tensor) -> Tensor:
            return net(points.to(x.dtype)).float()

        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            package = _package().AutoAttack(
                lambda points: _InputsOnly.apply(points, logits),  # type: ignore[no-untyped-call]
                norm=NORMS[norm],
                eps=eps,
                version=self.version,
                seed=self.seed,
                device=x.device,
            )
            package.attacks_to_run = self.parts(x.shape[1:], classes, norm)
            package.apgd_targeted.n_target_classes = package.fab.n_target_classes = min(9, classes - 1)
            points, _ = package.run_standard_evaluation(x.float(), y.long(), batch_size=self.batch_size)
        return model.region(x).project(points.to(x.dtype))


def _package() -> Any:
    try:
        return import_module("pyautoattack")
    except ImportError as error:
        raise ValueError(
            f"AutoAttack is not there ({error}): pip install 'ctbench[attacks]', or take APGD, which needs no package"
        ) from None


def _tiled(height: int, width: int) -> bool:
    """Whether the tiles of Square's first move in the l2 norm fit: of height // 5, as many as there is room for."""
    tile = height // 5
    if tile < 2:
        return tile == 1
    # 14 x 14: seven tiles of 2 from the third row on would need 16 rows, and the package fails
    first = (height - 5 * tile) // 2
    return all(first + side // tile * tile <= side for side in (height, width))


class _InputsOnly(torch.autograd.Function):
    """Logits whose gradient reaches the points alone: FAB calls `backward`, which would add to those of the weights."""

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
        return result, None
