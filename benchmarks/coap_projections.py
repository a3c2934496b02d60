"""The errors of COAP's bounds with random projections, relative to the exact bounds, and the time that they save.

Wong & Kolter's MNIST network, the first 50 test images, linf eps 0.1 without a data range, 10 seeds. An error is
|estimate - exact| / |exact|, of the bounds of the 9 margins of each image, and of the radii of the pre-activations
after the first layer (intervals bound those of the first layer exactly). CTBENCH_DATA names the folder of the data. The
network is read from the folder pretrained/ next to it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._timing import medians
from ctbench.datasets import MNIST
from ctbench.domains import COAP, coap
from ctbench.graph import Graph, trace
from ctbench.graph.ops import ReLU
from ctbench.networks import ConvSmall
from ctbench.regions import Box, Linf
from ctbench.specification import margin_rows
from ctbench.training import load_weights

IMAGES, EPS, SEEDS, PROJECTIONS, ROUNDS = 50, 0.1, 10, (10, 50, 200), 3


@torch.no_grad()
def main() -> None:
    data = os.environ.get("CTBENCH_DATA")
    weights = Path(data or "").parent / "pretrained" / "kw_mnist.safetensors"
    if data is None or not weights.exists():
        print("\nrandom projections: not run, CTBENCH_DATA names no folder next to pretrained/kw_mnist.safetensors")
        return
    model = ConvSmall().build((1, 28, 28), 10)
    load_weights(model, weights)
    x, y = MNIST().load(Path(data)).test[:IMAGES]
    graph, region = trace(model, (1, 28, 28)), Linf(eps=EPS, clip=None).region(x)
    spec = margin_rows(y, 10)
    boxes = coap.boxes(graph, region)
    bounds = coap.lower_bounds(graph, region, spec, inner=boxes)

    def estimate(projections: int, seed: int) -> tuple[Tensor, Tensor]:
        """The errors of the bounds, and of the radii."""
        inner = COAP(projections=projections, generator=torch.Generator().manual_seed(seed)).boxes(graph, region)
        estimates = coap.lower_bounds(graph, region, spec, inner=inner)
        return _errors(estimates, bounds), _errors(_radii(graph, inner), _radii(graph, boxes))

    print(f"\nrandom projections, conv-small of Wong & Kolter, MNIST, {IMAGES} images, linf eps {EPS}, {SEEDS} seeds")
    print(f"{'':12}{'margin error %':>20}{'radius error %':>20}{'seconds':>9}{'x exact':>9}")
    print(f"{'projections':12}{'median':>11}{'95th':>9}{'median':>11}{'95th':>9}{'':>9}{'':>9}")
    seconds = medians(
        {str(r): lambda r=r: COAP(projections=r).boxes(graph, region) for r in (None, *PROJECTIONS)}, rounds=ROUNDS
    )
    exact = seconds["None"]
    print(f"{'none: exact':12}{0:11.1f}{0:9.1f}{0:11.1f}{0:9.1f}{exact:9.2f}{1:9.2f}")
    for r in PROJECTIONS:
        margins, radii = (torch.cat(errors) for errors in zip(*(estimate(r, s) for s in range(SEEDS)), strict=True))
        row = "".join(f"{100 * _share(e, 0.5):11.1f}{100 * _share(e, 0.95):9.1f}" for e in (margins, radii))
        print(f"{r:<12}{row}{seconds[str(r)]:9.2f}{seconds[str(r)] / exact:9.2f}")


def _errors(estimates: Tensor, exact: Tensor) -> Tensor:
    return ((estimates - exact) / exact).abs().flatten()


def _radii(graph: Graph, boxes: list[Box]) -> Tensor:
    """The radii of all pre-activations except those of the first layer, [B, N]."""
    later = [node.inputs[0] for node in graph.nodes if isinstance(node.op, ReLU)][1:]
    return torch.cat([boxes[at].radius.flatten(1) for at in later], dim=1)


def _share(errors: Tensor, share: float) -> float:
    """The quantile of the errors at this share."""
    return float(errors.sort().values[int(share * (len(errors) - 1))])


if __name__ == "__main__":
    main()
