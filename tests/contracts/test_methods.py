"""What every training method must satisfy, built from the defaults of its paper."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tests.contracts.conftest import Case
from tests.kinds import ours
from torch import Tensor, nn

from ctbench.attacks import PGD, LineSearch
from ctbench.graph import freeze, trace
from ctbench.graph.ops import Smooth
from ctbench.methods import Batch, Method, RobustLoss, methods
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.line_search import LineSearchTraining
from ctbench.regions import RandomSegments, Region
from ctbench.specification import cross_entropy_at
from ctbench.training import codec

METHODS = ours(methods())
# a smoothed label, a boosted cross-entropy, a product, and losses of other weights: not the network's cross-entropy
OTHER_LOSS = {"arow", "mart", "taps", "sam", "weight-smoothing"}
BOUNDING = {  # methods whose loss bounds the loss at every point of the region
    "ibp": IBP(),
    "coap": COAP(),
    "crown-ibp": CrownIBP(),
    "crown-ibp mixed": CrownIBP(beta=0.3),
    "crown-ibp margin by margin": CrownIBP(fused=False),
    "crown-ibp over all layers": CrownIBP(every_layer=True),
    "crown-ibp margin by margin, mixed": CrownIBP(fused=False, beta=0.3),
}
# methods for segments; an exact search knows no smooth activations, and no greatest entries
ON_SEGMENTS = {"line-search": LineSearchTraining(attack=LineSearch(points=11))}


def example(name: str) -> Method:
    return ON_SEGMENTS[name] if name in ON_SEGMENTS else METHODS[name]()


@pytest.fixture(params=METHODS, scope="module")
def method(request: pytest.FixtureRequest) -> Method:
    return example(request.param)


@pytest.fixture(params=sorted(METHODS.keys() - OTHER_LOSS))
def cross_entropy_method(request: pytest.FixtureRequest) -> Method:
    return example(request.param)


@pytest.fixture(params=BOUNDING, scope="module")
def bounding(request: pytest.FixtureRequest) -> Method:
    return BOUNDING[request.param]


def around(sample, eps: float, method: Method) -> Region:
    """The region of a radius that a method is made for."""
    return RandomSegments(eps=eps, count=3).region(sample.x) if method.name in ON_SEGMENTS else sample.region(eps)


def batch(sample, eps: float, method: Method, logits: torch.Tensor) -> Batch:
    def region_at(scale: float) -> Region:
        return around(sample, scale * eps, method)

    return Batch(sample.x, sample.y, region_at(1.0), logits, torch.Generator().manual_seed(2), region_at)


def run(method, sample, eps: float, *, training: bool = True, dtype=torch.float64) -> tuple[RobustLoss, torch.Tensor]:
    graph, logits = freeze(trace(sample.model, (2, 6, 6)), sample.x, training=training)
    return method(graph, batch(sample, eps, method, logits)), logits


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def attributes(model: nn.Module) -> dict[str, set[str]]:
    return {name: set(vars(module)) for name, module in model.named_modules()}


@dataclass(frozen=True)
class Step:
    """A network and its inputs, what the network was before a method saw them, and what the method made of them."""

    sample: Case
    state: dict[str, Tensor]
    attributes: dict[str, set[str]]
    result: RobustLoss


@pytest.fixture(scope="module")
def step(case, method) -> Step:
    """One step of each method on each network, which several tests look at."""
    sample = case()
    graph, logits = freeze(trace(sample.model, (2, 6, 6)), sample.x, training=True)
    before = state(sample.model), attributes(sample.model)
    return Step(sample, *before, method(graph, batch(sample, 0.1, method, logits)))


def test_methods_are_found_by_walking_the_package():
    assert {"standard", "pgd", "ibp", "crown-ibp", "sabr", "taps", "mtl-ibp", "cc-ibp", "exp-ibp"} <= set(METHODS)
    assert {method.name for method in BOUNDING.values()} | OTHER_LOSS <= set(METHODS)


def test_a_method_can_stand_in_a_recipe(method):
    assert codec.decode(Method, codec.encode(method)) == method


def check_finite(result: RobustLoss, dtype: torch.dtype) -> None:
    assert result.per_sample.shape == (3,)
    assert result.per_sample.dtype == dtype
    assert torch.isfinite(result.per_sample).all()
    assert (result.per_sample > 0).all()
    assert result.correct.shape == (3,)
    assert result.correct.dtype == torch.bool


def test_every_sample_gets_a_finite_loss(step):
    check_finite(step.result, torch.float64)


def test_every_sample_gets_a_finite_loss_in_single_precision(case, method):
    check_finite(run(method, case(torch.float32), 0.1)[0], torch.float32)


def test_radius_zero_gives_the_clean_answers_and_their_cross_entropy(case, method):
    sample = case()
    result, logits = run(method, sample, 0.0)
    assert torch.equal(result.correct, logits.argmax(1) == sample.y)
    if method.name not in OTHER_LOSS:
        clean = F.cross_entropy(logits, sample.y, reduction="none")
        torch.testing.assert_close(result.per_sample, clean, rtol=0, atol=1e-6)


def test_samples_that_are_correct_have_a_small_loss(case, cross_entropy_method):
    result, _ = run(cross_entropy_method, case(), 0.01)
    # all margins positive: at most log K; some margin not positive: at least log 2
    assert (result.per_sample[result.correct] < torch.tensor(4.0).log()).all()
    assert (result.per_sample[~result.correct] >= torch.tensor(2.0).log() - 1e-9).all()


def test_the_gradient_reaches_every_parameter(case, method):
    sample = case()
    result, _ = run(method, sample, 0.1, training=False)
    result.per_sample.sum().backward()
    for path, parameter in sample.model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


def test_the_gradient_of_a_first_loss_is_finite(case, method):
    sample = case()
    graph, logits = freeze(trace(sample.model, (2, 6, 6)), sample.x, training=True)
    first = method.prelude(graph, batch(sample, 0.1, method, logits))
    if first is not None:
        assert first.shape == ()
        first.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in sample.model.parameters())


def test_nothing_is_left_on_the_network(step):
    sample, after = step.sample, step.sample.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in step.state.items())
    assert attributes(sample.model) == step.attributes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in sample.model.parameters())
    assert sample.x.grad is None
    assert not sample.x.requires_grad


def test_a_method_is_a_function_of_its_batch(case, method, step):
    again, _ = run(method, case(), 0.1)
    assert torch.equal(again.per_sample, step.result.per_sample)


def test_boxes_are_those_of_every_node(step):
    if step.result.boxes is not None:
        shapes = [(3, *node.shape) for node in step.sample.graph.nodes]
        assert [tuple(box.lower.shape) for box in step.result.boxes] == shapes
        assert all((box.lower <= box.upper).all() for box in step.result.boxes)


@dataclass(frozen=True)
class Attacked:
    """A network whose loss is known at many points of a region, of which some were found by an attack."""

    sample: Case
    region: Region
    at_points: Tensor  # [P, B]
    at_worst: Tensor  # [1, B]


@pytest.fixture(params=[0.01, 0.1], scope="module")
def attacked(request: pytest.FixtureRequest, case) -> Attacked:
    sample = case()
    graph, _ = freeze(trace(sample.model, (2, 6, 6)), sample.x, training=True)
    region, generator = sample.region(request.param), torch.Generator().manual_seed(2)
    objective = cross_entropy_at(graph.detach(), sample.y)
    found = PGD(steps=20, restarts=5)(objective, region, sample.x, generator)
    points = torch.cat([region.sample(50, generator), found[None], sample.x[None]])
    return Attacked(sample, region, objective(points), objective(found[None]))


def test_the_loss_bounds_the_loss_at_every_point(attacked, bounding):
    sample = attacked.sample
    graph, logits = freeze(trace(sample.model, (2, 6, 6)), sample.x, training=True)
    generator = torch.Generator().manual_seed(2)
    bound = bounding(graph, Batch(sample.x, sample.y, attacked.region, logits, generator)).per_sample
    assert (attacked.at_points <= bound + 1e-9).all()
    assert (bound > attacked.at_worst[0]).any()


@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "running statistics"])
def test_gradients_equal_finite_differences(case, bounding, training):
    sample = case()
    parameters = list(sample.model.parameters())
    torch.manual_seed(4)
    direction = [torch.randn_like(p) for p in parameters]

    def loss(step: float) -> torch.Tensor:
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += step * d
        try:
            return run(bounding, sample, 0.02, training=training)[0].per_sample.mean()
        finally:
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter -= step * d

    run(bounding, sample, 0.02, training=training)[0].per_sample.mean().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, direction, strict=True))
    with torch.no_grad():
        estimate = (loss(1e-6) - loss(-1e-6)).item() / 2e-6
    # CROWN's lines around a smooth activation touch it at points that the gradient takes as fixed
    fixed = bounding.name == "crown-ibp" and any(isinstance(node.op, Smooth) for node in sample.graph.nodes)
    rel, absolute = (0.1, 0.01) if fixed else (1e-4, 1e-6)
    assert slope == pytest.approx(estimate, rel=rel, abs=absolute)
