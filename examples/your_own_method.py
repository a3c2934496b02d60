"""Train with a method of your own: a hinge loss on interval bounds instead of IBP's cross-entropy.

python examples/your_own_method.py
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import ctbench
from ctbench.domains import interval
from ctbench.graph import Graph
from ctbench.methods import Batch, Method, RobustLoss
from ctbench.networks import CNN3
from ctbench.specification import margin_rows
from ctbench.training import Adam, SmoothRamp
from ctbench.verify import FAST_STAGES


@dataclass(frozen=True, kw_only=True)
class Hinge(Method):
    """Pushes the lower bound of each margin z_y - z_k above a threshold; its fields are its hyper-parameters."""

    name: ClassVar[str] = "hinge"
    threshold: float = 1.0

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)  # the region around each input, at the radius of this step
        margins = interval.lower_bounds(net, batch.region, margin_rows(batch.y, net.classes), inner=boxes)  # [B, K - 1]
        return RobustLoss((self.threshold - margins).clamp(min=0).sum(1), correct=(margins > 0).all(1), boxes=boxes)


def main() -> None:
    ibp = replace(
        ctbench.recipe("digits_ibp"),
        network=CNN3(width=4, batch_norm=True),
        optimizer=Adam(lr=0.02, milestones=(10,)),
        ramp=SmoothRamp(start=0, end=6),
        epochs=12,
        batch_size=128,
    )
    x, y = ibp.dataset.load().test[:200]
    for method in (ibp.method, Hinge(threshold=2.0)):
        recipe = replace(ibp, name=f"digits_{method.name}", method=method)
        run = ctbench.train(recipe, resume=True, quiet=True)
        result = ctbench.certify(run.model, x, y, ctbench.Linf(0.1), stages=FAST_STAGES)
        print(f"{method!r:<22} natural {result.natural_accuracy:.1%}, certified {result.certified_accuracy:.1%}")


if __name__ == "__main__":
    main()
