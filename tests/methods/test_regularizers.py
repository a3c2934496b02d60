"""The regulariser of Shi et al., against a transcription of its description, and L1."""

import numpy as np
import pytest
import torch
from torch import nn

from ctbench.domains import interval
from ctbench.graph import Graph, freeze, trace
from ctbench.methods.regularizers import l1, shi
from ctbench.networks import Normalize
from ctbench.regions import Box, Linf

TAU = 0.5


def reference(bounds: list[tuple[np.ndarray, np.ndarray]], input_radius: float) -> float:
    terms = []
    for lower, upper in bounds:
        center, radius = (upper + lower) / 2, (upper - lower) / 2
        tightness = max(0.0, TAU - input_radius / max(radius.mean(), 1e-12)) / TAU
        active, inactive = lower > 0, upper < 0
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = (center * active).mean() / np.abs(-(center * inactive).mean())  # 0, not -0: a / 0 is +inf
            spread = (center - center.mean()) ** 2
            nu = (spread * active).sum() / (spread * inactive).sum()
            rho, nu = (np.minimum(ratio, 1 / np.maximum(ratio, 1e-12)) for ratio in (rho, nu))
            balance = (np.maximum(0, TAU - rho) + np.maximum(0, TAU - nu)) / TAU
        terms.append(tightness + (balance if np.isfinite(balance) else 0.0))
    return sum(terms) / len(terms)


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        Normalize([0.4], [0.2]),
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    ).double()


def bounded(model: nn.Module, eps: float, shift: float = 0.0) -> tuple[Graph, list[Box]]:
    with torch.no_grad():
        model[5].bias += shift
    x = torch.rand(4, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph, _ = freeze(trace(model, (1, 5, 5)), x, training=True)
    return graph, interval.boxes(graph, Linf(eps=eps).region(x))


def expected(boxes: list[Box]) -> float:
    """ReLUs are fed by the batch norm (node 3) and the first linear layer (node 6), the convolution by node 1."""
    arrays = [(boxes[i].lower.detach().numpy(), boxes[i].upper.detach().numpy()) for i in (3, 6)]
    return reference(arrays, boxes[1].radius.mean().item())


@pytest.mark.parametrize("eps", [1e-6, 0.001, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("shift", [-30.0, -0.5, 0.0, 0.5, 30.0])
def test_the_regulariser_is_the_published_one(eps, shift):
    graph, boxes = bounded(network(), eps, shift)
    assert shi(graph, boxes).item() == pytest.approx(expected(boxes), rel=1e-9, abs=1e-12)


def test_the_values_by_hand():
    graph = trace(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)), (2,))
    inner = Box(torch.tensor([[1.0, -3.0, -1.0, 2.0]]), torch.tensor([[3.0, -1.0, 1.0, 4.0]]))
    anything = Box(torch.zeros(1, 4), torch.ones(1, 4))
    boxes = [Box(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 0.5]])), inner, anything, anything]
    # r0 = 1/4, mean r = 1: tightness 1/2; centres 2, -2, 0, 3 of mean 3/4: rho = 2/5,
    # nu = (1.25^2 + 2.25^2) / 2.75^2 = 6.625 / 7.5625 > tau
    assert shi(graph, boxes).item() == pytest.approx(0.5 + (0.5 - 0.4) / 0.5)


def test_the_cases_are_not_all_alike():
    values = {round(shi(*bounded(network(), eps)).item(), 6) for eps in (0.001, 0.05, 0.5)}
    assert len(values) == 3
    _, boxes = bounded(network(), 0.5)
    assert not ((boxes[6].lower > 0) | (boxes[6].upper < 0)).any()  # no neuron of the second ReLU is stable


@pytest.mark.parametrize("bias", [30.0, -30.0])
def test_neurons_that_are_all_active_or_all_dead_are_not_moved_by_their_balance(bias):
    """With b = 0 the published code divides by -0 and drops the term; ours is constant: the gradient is 0 in both."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    nn.init.constant_(model[0].bias, bias)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graph = trace(model, (2,))
    shi(graph, interval.boxes(graph, Linf(eps=0.1).region(x))).backward()
    assert model[0].bias.grad.tolist() == [0.0] * 4


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.05, 0.5])
def test_gradients_are_finite(eps):
    model = network()
    shi(*bounded(model, eps)).backward()
    for path, parameter in model.named_parameters():
        if not path.startswith("7"):  # the last layer feeds no ReLU
            assert parameter.grad is not None, path
            assert torch.isfinite(parameter.grad).all(), path


def test_gradients_equal_finite_differences():
    model = network()
    weight = model[5].weight
    shi(*bounded(model, 0.05)).backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(step: float) -> float:
        with torch.no_grad():
            weight.add_(direction, alpha=step)
            result = shi(*bounded(model, 0.05)).item()
            weight.sub_(direction, alpha=step)
        return result

    slope = (weight.grad * direction).sum().item()
    assert abs(slope) > 1e-3
    assert slope == pytest.approx((value(1e-7) - value(-1e-7)) / 2e-7, rel=1e-4)


def test_no_relu_means_no_penalty():
    graph = trace(nn.Linear(2, 2), (2,))
    boxes = interval.boxes(graph, Linf(eps=0.1).region(torch.rand(3, 2)))
    assert shi(graph, boxes).item() == 0


def test_l1_counts_weights_only():
    model = nn.Sequential(nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-3.0)
    penalty = l1(model)
    assert penalty.item() == pytest.approx(3.0 * (4 + 4))
    penalty.backward()
    assert torch.equal(model[3].weight.grad, -torch.ones(1, 4))
    assert model[3].bias.grad is None


def test_l1_of_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="l1 is > 0, but the network has no weights: set l1=0"):
        l1(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)))
