"""Values with no axis but the batch, as x[:, 0]: every domain bounds them, and verdicts follow."""

import pytest
import torch
from tests.kinds import ours
from torch import Tensor, nn

from ctbench import bounds, certify, verify_property
from ctbench.domains import domains
from ctbench.graph import freeze, trace
from ctbench.onnx import load_onnx, save_onnx
from ctbench.regions import Box
from ctbench.verify import BranchAndBound, Falsify, InputSplit
from ctbench.vnnlib import parse_vnnlib


class Columns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        position, speed = x[:, 0], x[:, 1]
        return torch.stack([position + 0.5 * speed, torch.relu(speed)], dim=1)


class Unbound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.unbind(1)
        return torch.stack([torch.tanh(a), b - 1.0], dim=-1)


class Greatest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.amax(1, keepdim=True), x.amax(1).unsqueeze(1)], dim=1)


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean(1), x.sum(1)], dim=1)


class Margin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x[:, 0] - x[:, 1:].amax(1)).unsqueeze(1)


class Larger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, 0], x[:, 1]
        return torch.stack([torch.maximum(a, -b), torch.minimum(a, b).abs()], dim=1)


class Layered(nn.Module):
    """With layers between, and parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 6), nn.Linear(3, 2)
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        a, b, c = h[:, 0] * self.factor, torch.relu(h[:, 1] - h[:, 2]), h[:, 3:].amax(1)
        return self.second(torch.stack([a + b, b + 0.25, c.reshape(-1, 1)[:, 0]], dim=1))


NETWORKS = (Columns, Unbound, Greatest, Means, Margin, Larger, Layered)
LOW, HIGH = torch.tensor([[2.0, -0.5]]).double(), torch.tensor([[3.0, 0.5]]).double()
every_network = pytest.mark.parametrize("kind", NETWORKS)


def sampled(model: nn.Module) -> tuple[Tensor, Tensor]:
    shares = torch.cartesian_prod(*[torch.linspace(0, 1, 41, dtype=torch.float64)] * 2)
    y = model(LOW + shares * (HIGH - LOW)).detach()
    return y.amin(0), y.amax(0)


@every_network
@pytest.mark.parametrize("domain", sorted(ours(domains())))
def test_every_domain_bounds_them(kind, domain):
    model = kind().double()
    least, greatest = sampled(model)
    lower, upper = bounds(model, Box(LOW, HIGH), domain=domain)
    assert (lower[0] <= least + 1e-9).all()
    assert (upper[0] >= greatest - 1e-9).all()
    assert (upper - lower).max() < 20


@every_network
def test_nodes_of_the_graph_have_an_axis(kind):
    graph, _ = freeze(trace(kind(), (2,)), torch.zeros(1, 2))
    assert all(node.shape for node in graph.nodes)


@every_network
def test_certify(kind):
    torch.manual_seed(1)
    model = nn.Sequential(kind(), nn.Linear(len(sampled(kind().double())[0]), 2))
    x = torch.tensor([[0.9, 0.2]])
    y = model(x).argmax(1)
    (record,) = certify(model, x, y, eps=1e-4, timeout=5.0).records
    assert (record.verdict.value, record.reason) == ("certified", "")


@every_network
@pytest.mark.parametrize("stages", [(Falsify(), BranchAndBound()), (Falsify(), InputSplit())], ids=["bab", "split"])
def test_properties(kind, stages, tmp_path):
    """Y_0 is above its least value less a tenth, and not everywhere above it plus a tenth."""
    model = kind()
    least, _ = sampled(kind().double())
    outputs = len(least)
    declared = "".join(f"(declare-const {n} Real)" for n in ("X_0", "X_1", *(f"Y_{k}" for k in range(outputs))))
    box = "(assert (>= X_0 2))(assert (<= X_0 3))(assert (>= X_1 -0.5))(assert (<= X_1 0.5))"
    save_onnx(model, tmp_path / "net.onnx", (2,))
    for shift, verdict in ((-0.1, "holds"), (0.1, "violated")):
        prop = parse_vnnlib(f"{declared}{box}(assert (<= Y_0 {float(least[0]) + shift:.9f}))")
        for network in (model, load_onnx(tmp_path / "net.onnx")):
            found = verify_property(network, prop, stages=stages, timeout=10.0)
            assert (found.verdict, found.reason) == (verdict, "")
