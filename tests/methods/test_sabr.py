"""SABR's small box, its attack and its shrinking."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from ctbench.domains import interval
from ctbench.graph import trace
from ctbench.methods import Batch, RobustLoss
from ctbench.methods.base import Method
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR, ShrunkReLU, shrunk, small_box
from ctbench.methods.taps import TAPS
from ctbench.regions import Box, Linf


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_small_box_by_hand():
    region = Box(tensor(0.0, 0.2, 0.2, 0.9), tensor(0.1, 0.6, 0.6, 1.0))
    box = small_box(region, tensor(0.0, 0.35, 0.58, 0.97), 0.5)
    torch.testing.assert_close(box.lower, tensor(0.0, 0.25, 0.4, 0.945))
    torch.testing.assert_close(box.upper, tensor(0.05, 0.45, 0.6, 0.995))


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.7, 1.0])
def test_the_small_box_lies_in_the_region_and_its_volume_is_the_ratio(ratio):
    x = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    region = Linf(eps=0.3).region(x)
    for point in region.sample(5, torch.Generator().manual_seed(1)):
        box = small_box(region, point, ratio)
        assert (box.lower >= region.lower - 1e-15).all()
        assert (box.upper <= region.upper + 1e-15).all()
        torch.testing.assert_close(box.radius, ratio * region.radius)
        if ratio < 1:
            assert ((box.lower <= point + 1e-15) & (point <= box.upper + 1e-15)).all()


def test_the_default_attack_is_the_papers():
    assert SABR().attack.step_sizes() == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005])


def test_the_inner_method_sees_the_small_box_around_the_adversarial_point(setting):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Spy(Method):
        name: ClassVar[str] = "spy"

        def __call__(self, net, batch: Batch) -> RobustLoss:
            seen.append(batch)
            return IBP()(net, batch)

    method = SABR(ratio=0.25, inner=Spy())
    setting.run(method)
    (batch,) = seen
    region = Linf(eps=setting.eps).region(setting.x)
    torch.testing.assert_close(batch.region.radius, 0.25 * region.radius)
    assert not batch.region.lower.requires_grad
    points = (setting.x, batch.region.center)
    clean, inside = (setting.run(IBP(), region=Box.around(x, torch.zeros_like(x))).per_sample for x in points)
    assert (inside > clean).all()  # its centre is adversarial
    assert torch.equal(batch.x, setting.x)


def test_a_larger_box_has_a_larger_loss(setting):
    losses = [setting.run(SABR(ratio=ratio)).per_sample.mean().item() for ratio in (0.0, 0.2, 0.5, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(setting.run(PGD(attack=SABR().attack)).per_sample.mean().item())


def test_the_image_of_an_unstable_relu_is_shrunk():
    """Eq. (15): centre and radius c_s u / 2 where the ReLU is unstable, else those of the ReLU."""
    lower, upper = tensor(-1.0, -2.0, 0.5, -3.0), tensor(2.0, 0.25, 3.0, -1.0)
    low, high = ShrunkReLU(0.8).image(lower, upper)
    torch.testing.assert_close(low, tensor(0.0, 0.0, 0.5, 0.0))
    torch.testing.assert_close(high, tensor(1.6, 0.2, 3.0, 0.0))


def test_shrinking_changes_intervals_and_no_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    graph, x = trace(model, (4,)), torch.rand(5, 4).double()
    region, smaller = Linf(eps=0.2).region(x), shrunk(graph, 0.5)
    assert shrunk(graph, 1.0) is graph
    assert torch.equal(smaller(x), graph(x))
    before, after = interval.boxes(graph, region), interval.boxes(smaller, region)
    assert torch.equal(before[1].upper, after[1].upper)
    unstable = (before[1].lower < 0) & (before[1].upper > 0)
    assert unstable.any()
    torch.testing.assert_close(after[2].upper[unstable], before[2].upper[unstable] / 2)
    assert torch.equal(after[2].upper[~unstable], before[2].upper[~unstable])


@pytest.mark.parametrize("inner", [IBP(), TAPS(product=False)], ids=["ibp", "taps"])
def test_shrinking_reaches_the_inner_method(setting, inner):
    plain, shrunken = (setting.run(SABR(inner=inner, shrink=shrink)).per_sample.mean() for shrink in (1.0, 0.5))
    assert shrunken < plain - 1e-3


@pytest.mark.parametrize(("fields", "named"), [({"ratio": 1.5}, "ratio"), ({"shrink": -0.1}, "shrink")])
def test_shares_are_checked(fields, named):
    with pytest.raises(ValueError, match=f"{named} of sabr is .*number from 0 to 1"):
        SABR(**fields)
