"""Bounds against reference values of another implementation (auto_LiRPA) and of exact solvers, in float64.

The two smallest networks lie beside this file; the others are looked for in the folder reference_bounds beside
the one that CTBENCH_DATA names. Not asserted, because it does not hold: that every CROWN bound is at least as
tight as CROWN-IBP's, or that as the interval bound (a tighter pre-activation can turn a slope around).
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import COAP, AlphaCrown, Crown, Zonotope, crown, crown_ibp, interval, relaxations
from ctbench.domains.linear_form import every_output
from ctbench.graph import Graph, freeze, trace
from ctbench.graph.ops import ReLU
from ctbench.regions import Box
from ctbench.specification import margin_rows

NETWORKS = [
    "toy_2_2_2",
    "mlp_rand",
    "mlp_trained",
    "cnn_bn_rand",
    "cnn_bn_trained",
    "res_bn_rand",
    "res_bn_trained",
    "kw_mnist_small_0.3",
]
SLOPES = {
    "crown": relaxations.adaptive,
    "crown_same_slope": relaxations.parallel,
    "crown_zero_lb": relaxations.zero,
    "crown_one_lb": relaxations.one,
}
EXACT = {"rtol": 1e-9, "atol": 1e-10}


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.c2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.b1, self.b2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.sc = nn.Sequential()
        if stride > 1:
            shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.sc = nn.Sequential(shortcut, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.b2(self.c2(torch.relu(self.b1(self.c1(x)))))
        return torch.relu(out + self.sc(x))


class Residual(nn.Module):
    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        width, channels = weights["stem.weight"].shape[:2]
        self.stem, self.bn = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.l1, self.l2 = Block(width, width, 1), Block(width, 2 * width, 2)
        self.fc1 = nn.Linear(*reversed(weights["fc1.weight"].shape))
        self.fc2 = nn.Linear(*reversed(weights["fc2.weight"].shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.l2(self.l1(torch.relu(self.bn(self.stem(x)))))
        return self.fc2(torch.relu(self.fc1(x.view(x.size(0), -1))))


def linear(weights: dict[str, Tensor], at: int) -> nn.Module:
    out, into = weights[f"{at}.weight"].shape
    return nn.Linear(into, out)


def build(name: str, weights: dict[str, Tensor]) -> nn.Module:
    """The architecture that the README of the reference values describes."""
    if name.startswith("res"):
        return Residual(weights)
    if name.startswith("cnn"):
        first, second = weights["0.weight"], weights["3.weight"]
        return nn.Sequential(
            nn.Conv2d(first.shape[1], first.shape[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(first.shape[0]),
            nn.ReLU(),
            nn.Conv2d(second.shape[1], second.shape[0], 3, stride=2, padding=1),
            nn.BatchNorm2d(second.shape[0]),
            nn.ReLU(),
            nn.Flatten(),
            linear(weights, 7),
            nn.ReLU(),
            linear(weights, 9),
        )
    if name.startswith("kw"):
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            linear(weights, 5),
            nn.ReLU(),
            linear(weights, 7),
        )
    layers: list[nn.Module] = [] if "0.weight" in weights else [nn.Flatten()]
    for at in sorted(int(key.split(".")[0]) for key in weights if key.endswith("weight")):
        layers += [linear(weights, at), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def find(name: str) -> Path:
    beside = Path(__file__).parent / "golden" / f"{name}.npz"
    if beside.exists():
        return beside
    if "CTBENCH_DATA" not in os.environ:
        pytest.skip("CTBENCH_DATA is not set, so there is no folder of reference bounds")
    path = Path(os.environ["CTBENCH_DATA"]).parent / "reference_bounds" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the reference bounds {path.name} are not here")
    return path


@pytest.fixture(scope="module", params=NETWORKS)
def golden(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A network, its input boxes for all radii in one batch, and its reference values in the same order."""
    with np.load(find(request.param), allow_pickle=False) as file:
        values = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {key.removeprefix("param/"): value for key, value in values.items() if key.startswith("param/")}
    model = build(request.param, weights).double().eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    x = values["x"]
    graph, logits = freeze(trace(model.requires_grad_(False), tuple(x.shape[1:])), x)
    radii = len(values["x_L"])
    region = Box(values["x_L"].flatten(0, 1), values["x_U"].flatten(0, 1))
    y = values["y"].repeat(radii)
    spec = margin_rows(y, graph.classes, dtype=torch.float64)
    torch.testing.assert_close(spec, values["C"].repeat(radii, 1, 1), rtol=0, atol=0)
    torch.testing.assert_close(logits, values["logits"], rtol=1e-11, atol=1e-11)
    return SimpleNamespace(name=request.param, values=values, graph=graph, region=region, spec=spec)


def relu_inputs(graph: Graph) -> list[int]:
    return [node.inputs[0] for node in graph.nodes if isinstance(node.op, ReLU)]


def check(golden: SimpleNamespace, method: str, boxes: list[Box], lower_bounds: Callable[..., Tensor]) -> None:
    logits = every_output(len(golden.spec), golden.graph.classes, like=golden.spec)
    for key, spec in (("margin", golden.spec), ("logits", logits)):
        bounds = lower_bounds(golden.graph, golden.region, torch.cat([spec, -spec], dim=1), inner=boxes)
        lower, upper = bounds[:, : spec.shape[1]], -bounds[:, spec.shape[1] :]
        torch.testing.assert_close(lower, golden.values[f"{method}/{key}_lb"].flatten(0, 1), **EXACT)
        torch.testing.assert_close(upper, golden.values[f"{method}/{key}_ub"].flatten(0, 1), **EXACT)


def check_boxes(golden: SimpleNamespace, method: str, boxes: list[Box]) -> None:
    inputs = relu_inputs(golden.graph)
    assert f"{method}/pre{len(inputs) - 1}_lb" in golden.values
    assert f"{method}/pre{len(inputs)}_lb" not in golden.values
    for number, at in enumerate(inputs):
        lower, upper = (golden.values[f"{method}/pre{number}_{side}"].flatten(0, 1) for side in ("lb", "ub"))
        torch.testing.assert_close(boxes[at].lower, lower, **EXACT)
        torch.testing.assert_close(boxes[at].upper, upper, **EXACT)


def test_interval_bounds(golden):
    boxes = interval.boxes(golden.graph, golden.region)
    check_boxes(golden, "ibp", boxes)
    check(golden, "ibp", boxes, interval.lower_bounds)


def test_crown_ibp_bounds(golden):
    boxes = crown_ibp.boxes(golden.graph, golden.region)
    check_boxes(golden, "ibp", boxes)
    check(golden, "crown_ibp", boxes, crown_ibp.lower_bounds)


@pytest.mark.parametrize("method", SLOPES)
def test_crown_bounds(golden, method):
    if f"{method}/margin_lb" not in golden.values:
        pytest.skip(f"no {method} values for {golden.name}")
    slope = SLOPES[method]
    boxes = Crown(slope=slope, pure=True).boxes(golden.graph, golden.region, memory=2**25)
    check_boxes(golden, method, boxes)
    check(golden, method, boxes, Crown(slope=slope).lower_bounds)


def check_below_minima(golden: SimpleNamespace, margins: Tensor) -> None:
    assert (margins <= golden.values["attack/margin_min"].flatten(0, 1) + 1e-9).all()
    if "exact_milp/margin_min" in golden.values:
        assert (margins <= golden.values["exact_milp/margin_min"].flatten(0, 1) + 1e-5).all()


@pytest.mark.parametrize("domain", [interval, crown_ibp], ids=["interval", "crown-ibp"])
def test_bounds_never_exceed_attacks_or_exact_minima(golden, domain):
    check_below_minima(golden, domain.lower_bounds(golden.graph, golden.region, golden.spec))


def test_crown_by_default_is_sound_and_refines_intervals(golden):
    boxes = crown.boxes(golden.graph, golden.region, memory=2**25)
    for number, at in enumerate(relu_inputs(golden.graph)):
        lower, upper = (golden.values[f"ibp/pre{number}_{side}"].flatten(0, 1) for side in ("lb", "ub"))
        assert (boxes[at].lower >= lower - 1e-9).all()
        assert (boxes[at].upper <= upper + 1e-9).all()
    for slope in SLOPES.values():
        margins = Crown(slope=slope).lower_bounds(golden.graph, golden.region, golden.spec, inner=boxes)
        check_below_minima(golden, margins)


def test_no_slope_exceeds_the_triangle_relaxation(golden):
    if "lp_triangle_crown_interm/margin_lb" not in golden.values:
        pytest.skip(f"no LP values for {golden.name}")
    optimum = golden.values["lp_triangle_crown_interm/margin_lb"].flatten(0, 1)
    boxes = Crown(pure=True).boxes(golden.graph, golden.region)  # the boxes that the LP was made of
    for slope in SLOPES.values():
        margins = Crown(slope=slope).lower_bounds(golden.graph, golden.region, golden.spec, inner=boxes)
        assert (margins <= optimum + 1e-6).all()


@pytest.mark.parametrize("golden", [name for name in NETWORKS if not name.startswith("kw")], indirect=True)
@pytest.mark.parametrize("domain", [Zonotope(pure=True), COAP()], ids=["zonotope", "coap"])
def test_forward_and_dual_bounds_with_one_slope(golden, domain):
    boxes = domain.boxes(golden.graph, golden.region)
    check_boxes(golden, "crown_same_slope", boxes)
    check(golden, "crown_same_slope", boxes, domain.lower_bounds)


SMALL = ["toy_2_2_2", "mlp_rand", "mlp_trained"]
OPTIMISED = [
    *((name, "alpha20_fixinterm", {"steps": 20, "decay": 0.98}) for name in NETWORKS),
    *((name, "alpha200_fixinterm", {"steps": 200, "decay": 0.99}) for name in SMALL),
    *((name, "alpha20", {"steps": 20, "decay": 0.98, "intermediate": True}) for name in [*SMALL, "cnn_bn_rand"]),
]


@pytest.mark.parametrize(("golden", "method", "options"), OPTIMISED, indirect=["golden"])
def test_optimised_slopes(golden, method, options):
    boxes = Crown(pure=True).boxes(golden.graph, golden.region)
    margins = AlphaCrown(**options).lower_bounds(golden.graph, golden.region, golden.spec, inner=boxes)
    reference, start = (golden.values[f"{name}/margin_lb"].flatten(0, 1) for name in (method, "crown"))
    assert margins.mean() >= reference.mean() - 1e-6
    assert (margins >= start - 1e-9).all()
    assert (margins >= reference - 1e-3 * (reference - start).mean() - 1e-5).all()
    check_below_minima(golden, margins)
    if "fixinterm" in method and "lp_triangle_crown_interm/margin_lb" in golden.values:
        assert (margins <= golden.values["lp_triangle_crown_interm/margin_lb"].flatten(0, 1) + 1e-6).all()
