"""The theory of signal-directed perturbations: each formula against its definition, and the reach of the theorem."""

import math

import pytest
import torch
from torch import Tensor, nn

from ctbench.analyses import one_neuron
from ctbench.analyses.one_neuron import Neuron, Task
from ctbench.domains import coap
from ctbench.graph import Graph, freeze, trace
from ctbench.regions import FirstCoordinate
from ctbench.specification import margin_rows

SAMPLES = 100_000


class Draws:
    """Random networks and tasks: a theta_1 > 0 with both signs of a, and scales over two orders of magnitude."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def scale(self, low: float, high: float) -> float:
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def make(self, *, gamma: float, share: float, spread: float) -> tuple[Neuron, Task, float]:
        """A network, a task with eps = share gamma and sigma r = spread gamma, and a step size.

        Logits at the signal, a theta_1 gamma, are of the order of 1, and a step moves theta_1 by the order of theta_1.
        """
        sigma, theta_1, logit = self.scale(0.1, 10), self.scale(0.1, 10), self.scale(0.1, 10)
        tail = torch.randn(round(self.uniform(1, 20)), generator=self.generator, dtype=torch.float64)
        tail *= spread * gamma / sigma * theta_1 / tail.norm()
        sign = 1 if self.uniform(0, 1) < 0.5 else -1
        theta = torch.cat([torch.tensor([sign * theta_1], dtype=torch.float64), tail])
        neuron = Neuron(theta=theta, a=sign * logit / (theta_1 * gamma), b=-sign * logit * self.scale(0.05, 2))
        rate = self.scale(0.1, 10) * theta_1 / abs(neuron.a) / gamma
        return neuron, Task(gamma=gamma, sigma=sigma, eps=share * gamma), rate

    def samples(self, neuron: Neuron, task: Task, count: int = SAMPLES) -> tuple[Tensor, Tensor]:
        return task.sample(count, len(neuron.theta), self.generator)


def risks(neuron: Neuron, task: Task, rate: float) -> tuple[float, float]:
    """The robust risks after a step of AT and after a step of COAP."""
    at, relaxed = (
        one_neuron.step(neuron, one_neuron.expected_gradient(gradient, neuron, task), rate=rate)
        for gradient in (one_neuron.adversarial_gradient, one_neuron.coap_gradient)
    )
    return one_neuron.robust_risk(at, task), one_neuron.robust_risk(relaxed, task)


def cross_entropy(margin: Tensor) -> Tensor:
    """log(1 + exp(-margin)); torch's softplus drops the 1 beyond 20."""
    return torch.logaddexp(torch.zeros_like(margin), -margin)


def test_the_robust_risk_is_that_of_samples():
    """Lemma B.1, also where a theta_1 < 0, which its proof leaves out."""
    draws = Draws(seed=0)
    for index in range(12):
        neuron, task, _ = draws.make(gamma=draws.scale(0.1, 10), share=draws.uniform(0, 1), spread=draws.scale(0.2, 2))
        if index % 3 == 0:
            neuron = Neuron(theta=neuron.theta, a=-neuron.a, b=-neuron.b)
        expected = one_neuron.robust_risk(neuron, task)
        risk = one_neuron.sampled_robust_risk(neuron, task, *draws.samples(neuron, task))
        assert risk == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / SAMPLES))


def test_the_robust_risk_decreases_in_the_signal_weight_through_zero():
    """Lemma B.1: the order of two risks is that of the signal weights, for steps of any size."""
    task = Task(gamma=1.0, sigma=0.7, eps=0.8)
    for a in (2.0, -2.0):
        thetas = [torch.tensor([a * signal, 0.9, -1.1]).double() for signal in (-3.0, -0.5, -0.1, 0.1, 0.5, 3.0)]
        values = [one_neuron.robust_risk(Neuron(theta=theta, a=a, b=-a), task) for theta in thetas]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 6


def two_layers() -> tuple[nn.Sequential, Graph, Tensor, Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2)).double()
    x, y = torch.randn(40, 20, dtype=torch.float64), torch.randint(2, (40,))
    return model, freeze(trace(model, (20,)), x)[0], x, y


def test_the_pre_activation_bounds_are_those_of_coap():
    """Proposition A.1."""
    model, graph, x, _ = two_layers()
    box = coap.boxes(graph, FirstCoordinate(eps=2.5).region(x))[1]
    lower, upper = one_neuron.pre_activation_bounds(model[0].weight, model[0].bias, x, 2.5)
    torch.testing.assert_close((lower, upper), (box.lower, box.upper), rtol=0, atol=1e-10)


def test_the_dual_bound_is_that_of_coap():
    """Theorem 4.1."""
    model, graph, x, y = two_layers()
    spec = margin_rows(y, 2, dtype=x.dtype)
    expected = coap.lower_bounds(graph, FirstCoordinate(eps=2.5).region(x), spec)
    layers = (model[0].weight, model[0].bias), (model[2].weight, model[2].bias)
    bound = one_neuron.dual_bound(*layers, x, spec[:, 0], 2.5)
    torch.testing.assert_close(bound, expected[:, 0], rtol=0, atol=1e-10)


def test_the_margins_are_the_worst_end_and_the_bound_of_coap():
    for neuron, task, x, y, _ in generic_samples():
        network, graph = as_network(neuron, x)
        region = FirstCoordinate(eps=task.eps).region(x)
        ends = torch.stack([y * network(x + end).squeeze(1) for end in shifts(task, x)])
        expected = coap.lower_bounds(graph, region, y.view(-1, 1, 1))[:, 0]
        torch.testing.assert_close(one_neuron.adversarial_margin(neuron, task, x, y), ends.amin(0))
        torch.testing.assert_close(one_neuron.coap_margin(neuron, task, x, y), expected)


def test_the_gradients_are_those_of_automatic_differentiation():
    """Propositions B.1 and B.2, sample by sample, through the worst end and through the bounds of COAP."""
    for neuron, task, x, y, unstable in generic_samples():
        network, graph = as_network(neuron, x)
        weight = network[0].weight
        ends = torch.stack([y * network(x + end).squeeze(1) for end in shifts(task, x)])
        region = FirstCoordinate(eps=task.eps).region(x)
        bounds = coap.lower_bounds(graph, region, y.view(-1, 1, 1))[:, 0]
        at, relaxed = (
            torch.stack([torch.autograd.grad(v, weight, retain_graph=True)[0][0, 0] for v in cross_entropy(margin)])
            for margin in (ends.amin(0), bounds)
        )
        torch.testing.assert_close(one_neuron.adversarial_gradient(neuron, task, x, y), at)
        torch.testing.assert_close(one_neuron.coap_gradient(neuron, task, x, y), relaxed)
        differ = unstable & (neuron.a * y > 0)
        assert differ.any()
        assert torch.isclose(at, relaxed)[~differ].all()
        assert not torch.isclose(at, relaxed)[differ].any()
        assert (at[differ] == 0).all()


def generic_samples() -> list[tuple[Neuron, Task, Tensor, Tensor, Tensor]]:
    """Networks of four pairs of signs (also of a theta_1 < 0), their samples, and where the neuron is unstable."""
    cases, draws = [], Draws(seed=1)
    for flip in (1, -1) * 4:
        neuron, task, _ = draws.make(gamma=draws.scale(0.1, 10), share=draws.uniform(0.5, 1), spread=2.0)
        neuron = Neuron(theta=neuron.theta, a=flip * neuron.a, b=flip * neuron.b)
        x, y = draws.samples(neuron, task, 60)
        lower, upper = one_neuron.pre_activation_bounds(neuron.theta.unsqueeze(0), torch.zeros(1), x, task.eps)
        cases.append((neuron, task, x, y, (lower * upper < 0).squeeze(1)))
    return cases


def as_network(neuron: Neuron, x: Tensor) -> tuple[nn.Sequential, Graph]:
    network = nn.Sequential(nn.Linear(x.shape[1], 1, bias=False), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        network[0].weight.copy_(neuron.theta)
        network[2].weight.fill_(neuron.a)
        network[2].bias.fill_(neuron.b)
    return network, freeze(trace(network, x.shape[1:]), x)[0]


def shifts(task: Task, x: Tensor) -> list[Tensor]:
    signal = torch.eye(x.shape[1], dtype=x.dtype)[0]
    return [-task.eps * signal, task.eps * signal]


@pytest.mark.parametrize("gradient", [one_neuron.adversarial_gradient, one_neuron.coap_gradient])
def test_the_expected_gradient_is_that_of_samples(gradient):
    draws = Draws(seed=2)
    for _ in range(6):
        neuron, task, _ = draws.make(
            gamma=draws.scale(0.1, 10), share=draws.uniform(0.1, 1), spread=draws.scale(0.5, 5)
        )
        values = gradient(neuron, task, *draws.samples(neuron, task))
        expected = one_neuron.expected_gradient(gradient, neuron, task)
        assert expected == pytest.approx(values.mean().item(), abs=4 * values.std().item() / math.sqrt(SAMPLES))
        assert one_neuron.expected_gradient(gradient, neuron, task, panels=900) == pytest.approx(expected, rel=1e-9)


def test_a_step_moves_the_signal_weight_alone():
    neuron = Neuron(theta=torch.tensor([1.0, 2.0, 3.0]).double(), a=1.0, b=-1.0)
    assert one_neuron.step(neuron, 0.5, rate=0.1).theta.tolist() == pytest.approx([0.95, 2.0, 3.0])


def test_theorem_4_2_where_the_signal_is_not_small():
    """Eq. (13) implies that COAP's risk is above AT's where gamma >= 1/24; below, see the counterexample."""
    draws = Draws(seed=3)
    for _ in range(50):
        gamma = draws.scale(1 / 24, 10)
        spread = math.sqrt(24 * gamma) * draws.scale(1.001, 10)
        neuron, task, rate = draws.make(gamma=gamma, share=draws.uniform(2 / 3, 1), spread=spread)
        assert one_neuron.has_signs_of_proof(neuron)
        assert one_neuron.meets_assumption(neuron, task)
        assert one_neuron.meets_condition(neuron, task)
        at, relaxed = risks(neuron, task, rate)
        assert relaxed > at


def test_the_condition_without_units_suffices_for_any_eps():
    draws = Draws(seed=4)
    for _ in range(50):
        neuron, task, rate = draws.make(
            gamma=draws.scale(1e-3, 10), share=draws.uniform(0.05, 1), spread=draws.scale(1.001, 10)
        )
        assert one_neuron.meets_condition(neuron, task)
        at, relaxed = risks(neuron, task, rate)
        assert relaxed > at


def test_theorem_4_2_fails_where_the_signal_is_small():
    """The counterexample: in units 100 times as large the network is the same, and Eq. (13) no longer holds."""
    theta = torch.tensor([1.0, 0.3, 0.4], dtype=torch.float64)
    neuron, task = Neuron(theta=theta, a=100.0, b=-0.5), Task(gamma=0.01, sigma=0.01, eps=0.0067)
    assert one_neuron.has_signs_of_proof(neuron)
    assert one_neuron.meets_assumption(neuron, task)
    at, relaxed = risks(neuron, task, 1.0)
    assert relaxed < at
    rescaled, larger = Neuron(theta=theta / 100, a=100.0, b=-0.5), Task(gamma=1.0, sigma=1.0, eps=0.67)
    assert not one_neuron.meets_assumption(rescaled, larger)
    assert risks(rescaled, larger, 1e-4) == pytest.approx((at, relaxed), rel=1e-12)


def test_theorem_4_2_needs_the_free_slope_of_wong_and_kolter():
    """With the best alpha, 0, COAP is AT; with CROWN's, 1 where u > -l, its step gives the lower risk of the two."""
    draws = Draws(seed=5)
    for _ in range(20):
        gamma = draws.scale(0.1, 10)
        neuron, task, rate = draws.make(
            gamma=gamma, share=draws.uniform(2 / 3, 1), spread=math.sqrt(24 * gamma) * draws.scale(1.1, 3)
        )
        assert one_neuron.meets_assumption(neuron, task)
        x, y, weights = one_neuron.weighted_inputs(neuron, task)
        exact = one_neuron.adversarial_margin(neuron, task, x, y)
        assert (one_neuron.coap_margin(neuron, task, x, y) <= exact + 1e-12).all()
        torch.testing.assert_close(one_neuron.coap_margin(neuron, task, x, y, alpha=0.0), exact)

        moving = Neuron(theta=neuron.theta.clone().requires_grad_(), a=neuron.a, b=neuron.b)
        adaptive = (x @ neuron.theta > 0).double().unsqueeze(1)
        loss = weights @ cross_entropy(one_neuron.coap_margin(moving, task, x, y, alpha=adaptive))
        gradient = torch.autograd.grad(loss, moving.theta)[0][0].item()
        assert one_neuron.robust_risk(one_neuron.step(neuron, gradient, rate=rate), task) < risks(neuron, task, rate)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta": torch.ones(1).double()}, r"theta is torch.float64 of the shape \[1\]: give \[d\] with d >= 2"),
        ({"theta": torch.ones(3)}, r"theta is torch.float32 of the shape \[3\]: .*in double precision"),
        ({"theta": torch.tensor([0.0, 1.0]).double()}, "theta_1 or all of theta_2:d are 0"),
        ({"theta": torch.tensor([1.0, 0.0]).double()}, "theta_1 or all of theta_2:d are 0"),
        ({"b": 1.0}, "a is 1.0 and b is 1.0: give them opposite signs"),
    ],
)
def test_networks_that_the_theory_leaves_out(changes, message):
    with pytest.raises(ValueError, match=message):
        Neuron(**({"theta": torch.ones(2).double(), "a": 1.0, "b": -1.0} | changes))


def test_a_task_needs_positive_numbers():
    with pytest.raises(ValueError, match=r"eps is -0\.1: give a positive number"):
        Task(gamma=1.0, sigma=1.0, eps=-0.1)
