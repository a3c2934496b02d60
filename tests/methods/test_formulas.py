"""Each method's own formula, by hand on small networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctbench import attacks
from ctbench.graph import freeze, trace
from ctbench.methods import Batch, Method, RobustLoss, methods
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.regions import Linf


def linear() -> nn.Module:
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        model.bias.copy_(torch.tensor([0.25, -1.0]))
    return model


def run(method: Method, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> RobustLoss:
    graph, logits = freeze(trace(model, tuple(x.shape[1:])), x)
    generator = torch.Generator().manual_seed(0)
    return method(graph, Batch(x, y, Linf(eps=eps).region(x), logits, generator))


X, Y = torch.tensor([[0.5, 0.5], [0.2, 0.9]], dtype=torch.float64), torch.tensor([1, 0])


def test_standard_is_the_clean_cross_entropy():
    model = linear()
    result = run(Standard(), model, X, Y, 0.1)
    torch.testing.assert_close(result.per_sample, F.cross_entropy(model(X), Y, reduction="none"))
    assert result.boxes is None


@pytest.mark.parametrize("method", [IBP(), PGD()], ids=["ibp", "pgd"])
def test_one_layer_has_the_loss_of_its_worst_corner(method):
    # z1 - z0 = 2 a + 2.5 b - 1.25 changes by 4.5 eps
    result = run(method, linear(), X, Y, 0.1)
    clean = [2 * 0.5 + 2.5 * 0.5 - 1.25, -(2 * 0.2 + 2.5 * 0.9 - 1.25)]
    margin = torch.tensor(clean, dtype=torch.float64) - 4.5 * 0.1
    torch.testing.assert_close(result.per_sample, (1 + (-margin).exp()).log(), rtol=1e-9, atol=1e-9)
    assert result.correct.tolist() == [True, False]


def test_a_margin_of_zero_is_not_certified():
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
    x, y = torch.tensor([[0.5]]).double(), torch.tensor([0])
    assert run(IBP(), model, x, y, 0.5).correct.tolist() == [False]
    assert run(IBP(), model, x, y, 0.49).correct.tolist() == [True]


def test_ibp_on_a_network_by_hand():
    # |x - 0.5| as relu(x - 0.5) + relu(0.5 - x); the box knows each summand alone
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.copy_(torch.tensor([-0.5, 0.5]))
        model[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        model[2].bias.copy_(torch.tensor([0.5, 0.0]))
    result = run(IBP(), model, torch.tensor([[0.5]]).double(), torch.tensor([0]), 0.2)
    assert result.per_sample.item() == pytest.approx(torch.tensor(-0.1).exp().log1p().item())  # 0.5 - 0.2 - 0.2
    assert result.boxes is not None
    assert result.boxes[2].upper.tolist() == [pytest.approx([0.2, 0.2])]


def test_pgd_uses_the_attack_that_it_is_given():
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([0, 1, 1])
    model = linear()
    weak = run(PGD(attack=attacks.PGD(steps=0, clean_start=True)), model, x, y, 0.1)
    torch.testing.assert_close(weak.per_sample, F.cross_entropy(model(x), y, reduction="none"))
    assert (run(PGD(), model, x, y, 0.1).per_sample > weak.per_sample).all()


def test_methods_are_found_by_their_names():
    assert methods()["ibp"] is IBP
    assert methods()["pgd"] is PGD
    assert methods()["standard"] is Standard
    assert all(method.name == name for name, method in methods().items())
