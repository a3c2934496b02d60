"""Methods around another one that move the weights: SAM and weight smoothing."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from ctbench import attacks
from ctbench.graph import Graph, freeze, trace
from ctbench.methods import Batch, Method, RobustLoss
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mart import MART
from ctbench.methods.pgd import PGD
from ctbench.methods.regularizers import shi
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.methods.standard import Standard
from ctbench.regions import Linf
from ctbench.results import jsonl
from ctbench.training import train
from ctbench.training.monitoring import bound_statistics

ATTACK = attacks.PGD(steps=1, restarts=2)
RANDOM = PGD(attack=attacks.PGD(steps=0))  # at a random point
INNER = [Standard(), RANDOM, MART(attack=ATTACK), IBP(), CrownIBP(), SABR(attack=ATTACK)]
WRAPPERS = [SAM, WeightSmoothing]

each_inner = pytest.mark.parametrize("inner", INNER, ids=lambda method: method.name)
each_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda method: method.name)


@dataclass(frozen=True, kw_only=True)
class Squares(Method):
    """The square of the only output."""

    name: ClassVar[str] = "squares"

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        return RobustLoss(net(batch.x).square().squeeze(1), correct=batch.y == 0)


def plane(*weight: float) -> tuple[Tensor, Graph, Batch]:
    """x -> <weight, x>, with the unit vectors as the batch; also the weight."""
    model = nn.Linear(len(weight), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weight]))
    x, y = torch.eye(len(weight), dtype=torch.float64), torch.zeros(len(weight), dtype=torch.long)
    net, logits = freeze(trace(model, (len(weight),)), x)
    return model.weight, net, Batch(x, y, Linf(eps=0.1).region(x), logits, torch.Generator().manual_seed(0))


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 10), nn.ReLU(), nn.Linear(10, 4))


def shared() -> nn.Module:
    """A layer that is used twice, and is perturbed once."""
    layer = nn.Linear(10, 10)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(18, 10), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(10, 4)
    )


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 2),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 4),
        nn.BatchNorm1d(4),
    )


# without batch norm, a frozen network is made of the parameters alone
parameters_only = pytest.mark.parametrize("setting", [dense, shared], indirect=True)


def add(model: nn.Module, offsets: list[Tensor]) -> None:
    """Move the parameters."""
    with torch.no_grad():
        for parameter, offset in zip(model.parameters(), offsets, strict=True):
            parameter += offset.view_as(parameter)


# ------------------------------------------------------------------------------------------------------------- SAM


def test_sam_by_hand():
    weight, net, batch = plane(3.0, 4.0)
    # L = (w1^2 + w2^2) / 2, whose gradient is w, of norm 5: w + 10 w / 5 = (9, 12)
    loss = SAM(inner=Squares(), rho=10.0)(net, batch).per_sample
    assert loss.tolist() == pytest.approx([81.0, 144.0])
    (gradient,) = torch.autograd.grad(loss.mean(), weight)
    assert gradient[0].tolist() == pytest.approx([9.0, 12.0])  # and not 3 times that: the perturbation is a constant


@parameters_only
@each_inner
def test_sam_is_the_inner_method_at_the_perturbed_parameters(setting, inner):
    sam = SAM(inner=inner, rho=0.3)
    loss, gradient, ascent = setting.run(sam).per_sample, setting.gradient(sam), setting.gradient(inner)
    sizes = [parameter.numel() for parameter in setting.model.parameters()]
    plain = setting.run(inner).per_sample
    add(setting.model, list((0.3 * ascent / ascent.norm()).split(sizes)))
    torch.testing.assert_close(loss, setting.run(inner).per_sample, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, setting.gradient(inner), rtol=0, atol=1e-10)
    assert loss.mean() > plain.mean() + 1e-2


@pytest.mark.parametrize("setting", [normed], indirect=True)
@pytest.mark.parametrize("inner", [Standard(), IBP()], ids=lambda method: method.name)
def test_sam_perturbs_what_batch_norms_make_of_their_statistics(setting, inner):
    leaves = list[Tensor]()

    def leaf(tensor: Tensor) -> Tensor:
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1]

    net, logits = setting.frozen()
    apart = net.map(leaf)
    assert len(leaves) == 4 * 2
    loss = inner(apart, setting.batch(apart(setting.x))).per_sample.mean()
    ascent = torch.autograd.grad(loss, leaves)
    norm = torch.cat([gradient.flatten() for gradient in ascent]).norm()
    steps = iter(ascent)
    there = net.map(lambda tensor: tensor + 0.3 * next(steps) / norm)
    expected = inner(there, setting.batch(there(setting.x))).per_sample
    losses = SAM(inner=inner, rho=0.3)(net, setting.batch(logits)).per_sample
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    parameters = list(setting.model.parameters())
    gradients = [torch.autograd.grad(each.mean(), parameters, retain_graph=True) for each in (losses, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@each_inner
def test_sam_without_a_radius_is_the_inner_method(same_method, inner):
    same_method(SAM(inner=inner, rho=0.0), inner)


def test_sam_stays_where_the_gradient_is_zero():
    weight, net, batch = plane(0.0, 0.0)
    loss = SAM(inner=Squares())(net, batch).per_sample
    (gradient,) = torch.autograd.grad(loss.mean(), weight)
    assert loss.tolist() == [0.0, 0.0]
    assert gradient[0].tolist() == [0.0, 0.0]


def test_sam_works_without_a_generator(setting):
    assert torch.isfinite(setting.run(SAM(), generator=None).per_sample).all()


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf])
def test_rho_is_a_distance(rho):
    with pytest.raises(ValueError, match=r"rho of sam is .*must be a number >= 0"):
        SAM(rho=rho)


# ------------------------------------------------------------------------------------------------------- smoothing


@pytest.mark.parametrize("inner", [IBP(), CrownIBP(), Standard()], ids=lambda method: method.name)
def test_smoothing_without_noise_is_the_inner_method(same_method, inner):
    same_method(WeightSmoothing(inner=inner, std=0.0, samples=3), inner)


@parameters_only
@pytest.mark.parametrize("inner", [IBP(), Standard()], ids=lambda method: method.name)
def test_smoothing_is_the_mean_over_noisy_parameters(setting, inner):
    smoothed = WeightSmoothing(inner=inner, std=0.3, samples=2)
    loss, gradient = setting.run(smoothed).per_sample, setting.gradient(smoothed)
    generator, losses, gradients = torch.Generator().manual_seed(3), [], []
    for _ in range(2):
        noise = [0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in setting.model.parameters()]
        add(setting.model, noise)
        losses.append(setting.run(inner).per_sample)
        gradients.append(setting.gradient(inner))
        add(setting.model, [-offset for offset in noise])
    torch.testing.assert_close(loss, (losses[0] + losses[1]) / 2, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, (gradients[0] + gradients[1]) / 2, rtol=0, atol=1e-10)
    assert (losses[0] - losses[1]).abs().max() > 0.01


def test_smoothing_approaches_the_expectation():
    weight, net, batch = plane(3.0, 4.0)
    # E (w + n / 2)^2 = w^2 + 1/4, of which a draw's deviation is about w
    loss = WeightSmoothing(inner=Squares(), std=0.5, samples=2000)(net, batch).per_sample
    assert loss.tolist() == pytest.approx([9.25, 16.25], abs=0.3)
    (gradient,) = torch.autograd.grad(loss.mean(), weight)
    assert gradient[0].tolist() == pytest.approx([3.0, 4.0], abs=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": -1.0}, "std of weight-smoothing is -1.0.*>= 0"),
        ({"std": math.nan}, "std of weight-smoothing is nan"),
        ({"samples": 0}, "samples is 0.*least 1"),
    ],
)
def test_smoothing_takes_a_deviation_and_a_number_of_draws(fields, message):
    with pytest.raises(ValueError, match=message):
        WeightSmoothing(**fields)


# ------------------------------------------------------------------------------------------------------------ both


@each_wrapper
@each_inner
def test_without_gradients_a_wrapper_is_the_inner_method(setting, wrapper, inner):
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    with torch.no_grad():
        methods = zip((wrapper(inner=inner), inner), generators, strict=True)
        wrapped, plain = (setting.run(method, generator=generator) for method, generator in methods)
    assert torch.equal(wrapped.per_sample, plain.per_sample)
    assert torch.equal(wrapped.correct, plain.correct)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("setting", [normed], indirect=True)
@pytest.mark.parametrize(
    "method",
    [SAM(inner=IBP(), rho=5.0), WeightSmoothing(inner=IBP(), std=2.0)],
    ids=lambda method: method.name,
)
def test_boxes_and_answers_are_those_of_the_network_itself(setting, method):
    setting = replace(setting, eps=0.01)
    net, logits = setting.frozen()
    batch, parameters = setting.batch(logits), list(setting.model.parameters())
    found, plain = method(net, batch), IBP()(net, batch)
    assert (found.per_sample - plain.per_sample).abs().max() > 1  # the losses are of other weights
    assert torch.equal(found.correct, plain.correct)
    assert plain.correct.any()
    for box, other in zip(found.boxes, plain.boxes, strict=True):
        torch.testing.assert_close(box.lower, other.lower, rtol=0, atol=1e-12)
        torch.testing.assert_close(box.upper, other.upper, rtol=0, atol=1e-12)
    assert bound_statistics(net, batch, found) == bound_statistics(net, batch, plain)
    # a regulariser on the boxes has the gradient that it has without the wrapper
    gradients = [
        torch.autograd.grad(shi(net, result.boxes), parameters, retain_graph=True, materialize_grads=True)
        for result in (found, plain)
    ]
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@each_wrapper
def test_without_boxes_inside_there_are_none(setting, wrapper):
    assert setting.run(wrapper(inner=RANDOM)).boxes is None


@each_wrapper
def test_a_first_step_is_that_of_the_inner_method(setting, wrapper):
    edac = EDAC(attack=ATTACK)
    first = [method.prelude(*frozen(setting)) for method in (wrapper(inner=edac), edac)]
    assert torch.equal(*first)
    assert wrapper(inner=IBP()).prelude(*frozen(setting)) is None


def frozen(setting) -> tuple[Graph, Batch]:
    net, logits = setting.frozen()
    return net, setting.batch(logits)


@each_wrapper
def test_a_wrapper_trains_with_all_that_its_inner_method_has(tiny, tmp_path, wrapper):
    recipe = tiny(method=wrapper(inner=IBP()), epochs=1, accumulate=2, validation=0.1)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    (metrics,) = jsonl.read(run.folder.metrics)
    assert {"ibp_accuracy", "validation_robust_accuracy"} <= metrics.keys()
