"""COLT: its stages, their zonotopes, and the layers that they train."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.methods.residual import Block
from torch import Tensor, nn

from ctbench import attacks
from ctbench.domains import Crown, Zonotope
from ctbench.domains.relaxations import parallel
from ctbench.graph import Graph, freeze, place_of_cut, split, trace
from ctbench.methods import Batch
from ctbench.methods.colt import COLT, Relaxed
from ctbench.methods.pgd import PGD
from ctbench.regions import L2, Box, Linf

FIXED = attacks.PGD(steps=0)
REPEATED = attacks.PGD(steps=4, step_size=0.25, clean_start=True)  # from the centre: nothing is random


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())


def residual() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Block(1), nn.Linear(3, 3), nn.ReLU())


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.LeakyReLU(0.1)]
    return nn.Sequential(nn.Unflatten(1, (1, 5, 5)), *layers)


@pytest.fixture(params=[(sequential, 3), (residual, 3), (convolutional, 25)], ids=["sequential", "residual", "pooled"])
def front(request: pytest.FixtureRequest) -> tuple[Graph, Box]:
    """A network, and a box of inputs."""
    make, size = request.param
    torch.manual_seed(2)
    x = torch.rand(3, size).double()
    return freeze(trace(make().double(), (size,)), x)[0].detach(), Linf(eps=0.3).region(x)


# ----------------------------------------------------------------------------------------------------------- zonotopes


def forms(graph: Graph, box: Box, a: Tensor) -> Tensor:
    """The least values of forms [B, S, *output] over the zonotope of a network, [B, S], by its generators."""
    boxes = Crown(slope=parallel).boxes(graph, box)
    return Zonotope(pure=True).lower_bounds(graph, box, a, inner=boxes)


def random_forms(graph: Graph, batch: int) -> Tensor:
    return torch.randn(batch, 6, *graph.nodes[-1].shape, generator=torch.Generator().manual_seed(4)).double()


def test_the_points_of_all_error_terms_are_the_zonotope(front):
    graph, box = front
    relaxed, a = Relaxed.over(box, graph), random_forms(graph, 3)
    errors = relaxed.errors.center.requires_grad_()
    values = (relaxed(errors[None])[0].unsqueeze(1) * a).flatten(2).sum(2)  # [B, S], affine in the error terms
    slopes = [torch.autograd.grad(values[:, form].sum(), errors, retain_graph=True)[0] for form in range(6)]
    least = values - torch.stack(slopes, dim=1).abs().sum(2)
    torch.testing.assert_close(least, forms(graph, box, a), rtol=0, atol=1e-9)
    assert ((relaxed.errors.lower == -1) & (relaxed.errors.upper == 1)).all()


def test_the_points_are_affine_in_the_error_terms(front):
    graph, box = front
    relaxed = Relaxed.over(box, graph)
    one, other = relaxed.errors.sample(2, torch.Generator().manual_seed(0))
    ends = relaxed(torch.stack([one, other]))
    torch.testing.assert_close(relaxed((one / 4 + 3 * other / 4)[None])[0], ends[0] / 4 + 3 * ends[1] / 4)
    assert ends.shape == (2, 3, *graph.nodes[-1].shape)


def test_the_zonotope_holds_what_the_network_makes_of_the_region(front):
    graph, box = front
    a = random_forms(graph, 3)
    for point in box.sample(100, torch.Generator().manual_seed(1)):
        values = (graph(point).unsqueeze(1) * a).flatten(2).sum(2)
        assert (values >= forms(graph, box, a) - 1e-12).all()


def test_without_activations_the_zonotope_is_exact():
    torch.manual_seed(0)
    graph = trace(nn.Linear(3, 4).double(), (3,))
    box = Linf(eps=0.2).region(torch.rand(2, 3).double())
    point = box.sample(1, torch.Generator().manual_seed(0))[0]
    mapped = Relaxed.over(box, graph.detach())(((point - box.center) / box.radius)[None])[0]
    torch.testing.assert_close(mapped, graph(point))


# -------------------------------------------------------------------------------------------------------------- search


def cut(setting, stage: int) -> tuple[Graph, Graph, Box]:
    """Both parts of the network of two ReLUs, and the region."""
    net, logits = setting.frozen()
    return *split(net.detach(), place_of_cut(net, 2 - stage)), setting.batch(logits).region


@pytest.mark.parametrize("stage", [1, 2])
def test_the_loss_is_that_of_the_point_found_in_the_zonotope(setting, stage):
    radii = []

    @dataclass(frozen=True, kw_only=True)
    class Recording(attacks.PGD):
        name: ClassVar[str] = "recording-errors"

        def __call__(self, objective, region, x, generator=None):
            radii.append((region, x, super().__call__(objective, region, x, generator)))
            return radii[-1][2]

    loss = setting.run(COLT(progress=stage + 1, attack=Recording(steps=20))).per_sample
    ((region, centre, errors),) = radii
    assert (region.lower == -1).all()
    assert (region.upper == 1).all()
    assert (centre == 0).all()
    assert (errors.abs() <= 1).all()
    front, back, box = cut(setting, stage)
    point = Relaxed.over(box, front)(errors[None])[0]
    torch.testing.assert_close(loss, F.cross_entropy(back(point), setting.y, reduction="none"))
    flat = point.flatten(1)
    faces = torch.eye(flat.shape[1]).double().expand(len(flat), -1, -1).unflatten(2, front.nodes[-1].shape)
    assert (flat >= forms(front, box, faces) - 1e-12).all()
    assert (flat <= -forms(front, box, -faces) + 1e-12).all()


@pytest.mark.parametrize("stage", [1, 2])
def test_the_search_ends_above_random_points(setting, stage):
    front, back, box = cut(setting, stage)
    relaxed = Relaxed.over(box, front)
    points = relaxed(relaxed.errors.sample(300, torch.Generator().manual_seed(0)))
    losses = torch.stack([F.cross_entropy(back(point), setting.y, reduction="none") for point in points])
    loss = setting.run(COLT(progress=stage + 1, attack=attacks.PGD(steps=20, step_size=0.25))).per_sample
    assert (loss > losses.amax(0)).all()


@pytest.fixture
def tiny() -> tuple[Graph, Tensor, Tensor]:
    """A network of 2 inputs and 2 layers of 3 ReLUs, which are 8 error terms, with inputs and labels."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(6, 2).double()
    return freeze(trace(model, (2,)), x)[0], x, torch.arange(6) % 3


def stage_loss(tiny: tuple[Graph, Tensor, Tensor], stage: int) -> Tensor:
    net, x, y = tiny
    attack = attacks.PGD(steps=50, restarts=30, step_size=0.25)
    batch = Batch(x, y, Linf(eps=0.2).region(x), net(x), torch.Generator().manual_seed(0))
    return COLT(progress=stage + 1, attack=attack)(net, batch).per_sample


def test_behind_the_last_relu_the_worst_point_is_a_vertex_and_found(tiny):
    net, x, y = tiny
    front, back = split(net.detach(), place_of_cut(net, 0))
    vertices = torch.tensor(list(product([-1.0, 1.0], repeat=8))).double().unsqueeze(1).expand(-1, 6, -1)
    points = Relaxed.over(Linf(eps=0.2).region(x), front)(vertices)
    worst = torch.stack([F.cross_entropy(back(point), y, reduction="none") for point in points]).amax(0)
    torch.testing.assert_close(stage_loss(tiny, 2), worst, rtol=0, atol=1e-9)


def test_the_loss_of_a_stage_is_not_below_that_of_any_input_nor_of_the_stage_before(tiny):
    net, x, y = tiny
    region = Linf(eps=0.2).region(x)
    steps = torch.linspace(0, 1, 41).double()
    shares = torch.cartesian_prod(steps, steps).unsqueeze(1)
    grid = region.lower + shares * (region.upper - region.lower)
    worst = torch.stack([F.cross_entropy(net(point), y, reduction="none") for point in grid]).amax(0)
    losses = [stage_loss(tiny, stage) for stage in (0, 1, 2)]
    assert (losses[0] >= worst - 1e-9).all()
    assert (losses[1] >= losses[0] - 1e-9).all()
    assert (losses[2] >= losses[1] - 1e-9).all()
    assert (losses[1] > losses[0] + 1e-3).any()
    assert (losses[2] > losses[1] + 1e-3).any()


@pytest.mark.parametrize("progress", [0.0, 1.0, 1.5, 2.1, 3.0])
def test_at_radius_zero_every_stage_has_the_clean_loss(setting, progress):
    _, logits = setting.frozen()
    region = Box(setting.x, setting.x)
    clean = F.cross_entropy(logits, setting.y, reduction="none")
    torch.testing.assert_close(setting.run(COLT(progress=progress), region=region).per_sample, clean)


# -------------------------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_the_first_stage_is_adversarial_training(same_method, progress):
    attack = attacks.PGD(steps=3, restarts=2)
    same_method(COLT(progress=progress, attack=attack), PGD(attack=attack))


@pytest.mark.parametrize(
    ("progress", "mixing", "expected"),
    [
        (0.0, 0.3, (0, 1)),
        (0.1, 0.3, (0, 1)),  # no stage to come from
        (1.0, 0.3, (0, 1)),
        (1.15, 0.3, (1, 0.5)),
        (1.3, 0.3, (1, 1)),
        (2.0, 0.3, (1, 1)),
        (2.25, 1.0, (2, 0.25)),
        (3.0, 1.0, (2, 1)),
        (1.001, 0.0, (1, 1)),
    ],
)
def test_progress_tells_the_stage_and_the_share_of_its_loss(progress, mixing, expected):
    assert COLT(progress=progress, mixing=mixing).stage() == pytest.approx(expected)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_begins_with_the_loss_of_the_one_before(setting, stage):
    def loss(progress: float) -> Tensor:
        return setting.run(COLT(progress=progress, mixing=0.5, attack=REPEATED)).per_sample

    before, after = loss(stage), loss(stage + 1)
    assert (before - after).abs().max() > 1e-2
    torch.testing.assert_close(loss(stage + 0.1), 0.8 * before + 0.2 * after)
    torch.testing.assert_close(loss(stage + 0.5), after, rtol=0, atol=0)
    torch.testing.assert_close(loss(stage + 1e-9), before, rtol=0, atol=1e-7)


def test_correct_is_what_neither_stage_misleads(tiny):
    """With random points, either stage may find the worse point."""
    net, x = tiny[0], torch.rand(300, 2).double()
    with torch.no_grad():
        net.nodes[-1].op.bias.sub_(net(x).mean(0))  # or all answers were the same
    logits, generators = net(x), [torch.Generator().manual_seed(0) for _ in range(2)]
    batches = [Batch(x, logits.argmax(1), Linf(eps=0.5).region(x), logits, generator) for generator in generators]
    own, former = (COLT(progress=progress, attack=FIXED)(net, batches[0]).correct for progress in (2.0, 1.0))
    assert torch.equal(COLT(progress=1.15, attack=FIXED)(net, batches[1]).correct, own & former)
    assert {(True, False), (False, True)} < set(zip(own.tolist(), former.tolist(), strict=True))


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("progress", [0.5, 1.1, 2.0, 2.1, 3.0])
def test_gradients_reach_what_lies_behind_the_cut_and_nothing_else(setting, progress):
    net, logits = freeze(trace(setting.model, (2, 3, 3)), setting.x)  # with the running statistics
    COLT(progress=progress)(net, setting.batch(logits)).per_sample.sum().backward()
    passed = 0
    for layer in setting.model:
        frozen = passed < COLT(progress=progress).stage()[0]
        for parameter in layer.parameters():
            assert (parameter.grad is None) == frozen
            assert frozen or parameter.grad.abs().sum() > 0
        passed += isinstance(layer, nn.ReLU)


@pytest.mark.parametrize("progress", [1.1, 2.0, 2.1, 3.0])
def test_gradients_behind_the_cut_equal_finite_differences(setting, progress):
    method = COLT(progress=progress, attack=FIXED)
    gradient = setting.gradient(method)
    torch.manual_seed(4)
    passed, parts = 0, []
    for layer in setting.model:  # a front that moved would move the zonotope
        trained = float(passed >= method.stage()[0])
        parts += [trained * torch.randn(parameter.numel()).double() for parameter in layer.parameters()]
        passed += isinstance(layer, nn.ReLU)
    direction = torch.cat(parts)
    slope = (gradient * direction).sum().item()
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(setting.slope(method, direction), rel=1e-5, abs=1e-7)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("progress", [0.0, 1.5])
def test_regions_that_are_no_boxes_are_refused(setting, progress):
    with pytest.raises(ValueError, match=r"the region is a L2Ball but colt makes zonotopes of boxes: use .* Linf"):
        setting.run(COLT(progress=progress), region=L2(eps=0.1).region(setting.x))


def test_more_stages_than_activations_are_refused(setting):
    message = r"progress is 3\.1, but stage 3 of colt would leave -1 of the network's 2 activations after its cut"
    with pytest.raises(ValueError, match=rf"{message}, .*this network can be cut with 0, 1, 2 activations"):
        setting.run(COLT(progress=3.1))


def test_a_cut_that_a_branch_leads_past_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Block(2), nn.Linear(3, 2)).double()
    x = torch.rand(2, 3).double()
    net, logits = freeze(trace(model, (3,)), x)
    batch = Batch(x, torch.tensor([0, 1]), Linf(eps=0.1).region(x), logits)
    assert torch.isfinite(COLT(progress=2.0)(net, batch).per_sample).all()
    with pytest.raises(ValueError, match=r"stage 2 of colt .*this network can be cut with 0, 1, 3, 4 activations"):
        COLT(progress=2.5)(net, batch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"progress": -0.1}, r"progress of colt is -0\.1"),
        ({"progress": float("nan")}, "progress of colt is nan"),
        ({"progress": float("inf")}, "progress of colt is inf"),
        ({"mixing": 1.1}, r"mixing of colt is 1\.1: it is a share"),
        ({"mixing": -0.1}, "mixing of colt is -0"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        COLT(**fields)
