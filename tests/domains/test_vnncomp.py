"""Bounds of published networks, read from their files: sound on the box of an instance, and as tight as published ones.

Looked for in the folder vnncomp beside the one that CTBENCH_DATA names.
"""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ctbench.attacks import PGD
from ctbench.domains import crown, interval
from ctbench.graph import Graph, freeze, trace, walk_forward
from ctbench.onnx import load_onnx
from ctbench.regions import Box
from ctbench.vnnlib import read_vnnlib

NETWORKS = [
    "cifar10_resnet_2b",
    "colt_mnist_0.1",
    "eran_mnist_convsmall_point",
    "kw_cifar_small_8px",
    "kw_mnist_small_0.3",
    "mnistfc_256x2",
    "mnistfc_256x6",
    "oval21_base",
    "oval21_wide",
    "sdp_cifar_cnn_a_mix",
    "sri_resnet_a",
]


class Instance(NamedTuple):
    """A network in single precision, a box, and forms <row, logits> + offset: all positive where the property holds."""

    graph: Graph
    region: Box
    rows: Tensor  # [1, S, K]
    offsets: Tensor  # [S]
    reference: float | None  # the worst form after CROWN without intervals, in another implementation


def folder() -> Path:
    if "CTBENCH_DATA" not in os.environ:
        pytest.skip("CTBENCH_DATA is not set: no vnncomp beside it")
    found = Path(os.environ["CTBENCH_DATA"]).parent / "vnncomp"
    if not (found / "instances.csv").exists():
        pytest.skip(f"there is no {found / 'instances.csv'}")
    return found


def load(root: Path, name: str) -> Instance:
    """The first instance of a network whose bound is known, or the first."""
    with (root / "instances.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if Path(row["onnx"]).stem == name]
    row = next((row for row in rows if row["reference_crown_lb"]), rows[0])
    model = load_onnx(root / row["onnx"])
    (case,) = read_vnnlib(root / row["vnnlib"]).cases
    region = Box(*(end.float().view(1, *model.input_shape) for end in (case.lower, case.upper)))
    graph, _ = freeze(trace(model, model.input_shape), region.center)
    assert all(len(alternative.rows) == 1 for alternative in case.unsafe)
    forms = torch.cat([alternative.rows for alternative in case.unsafe]).unsqueeze(0).float()
    offsets = torch.cat([alternative.offsets for alternative in case.unsafe]).float()
    reference = float(row["reference_crown_lb"]) if row["reference_crown_lb"] else None
    return Instance(graph.detach(), region, forms, offsets, reference)


@pytest.fixture(scope="module", params=NETWORKS)
def instance(request: pytest.FixtureRequest) -> Instance:
    return load(folder(), request.param)


def attacked(graph: Graph, region: Box, forms: Tensor) -> Tensor:
    """For each form [S, K] a point at which it is small, [S, *shape]."""
    many = region.take(torch.zeros(len(forms), dtype=torch.long))

    def objective(points: Tensor) -> Tensor:
        return -(graph(points.flatten(0, 1)).view(*points.shape[:2], -1) * forms).sum(2)

    return PGD(steps=10)(objective, many, many.center, torch.Generator().manual_seed(0))


def test_no_point_of_an_instance_violates_a_bound(instance):
    graph, region, forms = instance.graph, instance.region, instance.rows[0]
    sampled = region.sample(100, torch.Generator().manual_seed(1))[:, 0]
    corners = torch.where(sampled > region.center, region.upper, region.lower)
    points = torch.cat([region.center, region.lower, region.upper, sampled, corners, attacked(graph, region, forms)])
    reached = walk_forward(graph, lambda node, *inputs: node.op(*inputs), points)
    found = {"interval": interval.boxes(graph, region), "crown": crown.boxes(graph, region)}
    for name, boxes in found.items():
        for node, box, values in zip(graph.nodes, boxes, reached, strict=True):
            slack = 1e-5 * (1 + values.abs().amax(0))
            assert (box.lower[0] <= values.amin(0) + slack).all(), (name, node.name)
            assert (box.upper[0] >= values.amax(0) - slack).all(), (name, node.name)
    lowest = (reached[-1] @ forms.T).amin(0)
    for domain in (interval, crown):
        bound = domain.lower_bounds(graph, region, instance.rows)[0]
        assert (bound <= lowest + 1e-4 * (1 + lowest.abs())).all()


def test_crown_is_at_least_as_tight_as_published(instance):
    bound = crown.lower_bounds(instance.graph, instance.region, instance.rows)[0] + instance.offsets
    assert instance.reference is not None
    assert bound.min() >= instance.reference - 1e-3 * (1 + abs(instance.reference))
    plain = interval.lower_bounds(instance.graph, instance.region, instance.rows)[0] + instance.offsets
    assert plain.min() < bound.min()
