"""Errors of estimates of the worst-case loss: signs, and exact losses against a search over vertices."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ctbench.analyses import LossErrors, loss_errors
from ctbench.domains import crown
from ctbench.graph import Precisions
from ctbench.networks import MLP
from ctbench.regions import L2, Linf
from ctbench.specification import margin_rows
from ctbench.verify import worst_case


def small(seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    model, x = MLP(hidden=(7, 6)).build((3,), 4), torch.rand(6, 3)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_overestimate_and_pgd_underestimates(loss, seed):
    model, x, y = small(seed)
    errors = loss_errors(model, x, y, eps=0.3, loss=loss)
    assert errors.mean("open") == 0
    assert min(errors.values("interval")) >= 0
    assert max(errors.values("pgd")) <= 0
    assert errors.mean("|interval|") == errors.mean("interval") > 0.01
    assert errors.mean("|pgd|") == -errors.mean("pgd")
    assert errors.mean("|taps|") < errors.mean("|interval|")


@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
def test_a_program_that_misses_what_an_attack_finds_is_an_error(loss, monkeypatch):
    model, x, y = small()
    name = "least" if loss == "margin" else "worst_case"
    real = getattr(worst_case, name)

    def wrong(*arguments, **options):
        minimum = real(*arguments, **options)
        if loss == "margin":
            return replace(minimum, lower=minimum.lower + 5, upper=minimum.upper + 5)
        raised = [replace(one, lower=one.lower + 5, upper=one.upper + 5) for one in minimum.margins]
        return replace(minimum, margins=tuple(raised))

    monkeypatch.setattr(worst_case, name, wrong)
    with pytest.raises(
        worst_case.FalseBoundError, match=r"an attack reaches the loss .* at sample \d of a part, and the integer"
    ):
        loss_errors(model, x, y, eps=0.3, loss=loss)


def test_the_exact_loss_is_at_a_point_and_no_point_is_worse():
    model, x, y = small()
    errors = loss_errors(model, x, y, eps=0.3)
    region = Linf(eps=0.3).region(x.double())
    points = region.sample(4000, torch.Generator().manual_seed(1))
    logits = model.double()(points.flatten(0, 1)).view(4000, 6, 4)
    true = logits.gather(2, y.expand(4000, 6).unsqueeze(2))
    others = logits.scatter(2, y.expand(4000, 6).unsqueeze(2), -torch.inf).amax(2)
    sampled = (others - true.squeeze(2)).amax(0)
    exact = torch.tensor(errors.values("exact")).double()
    assert bool((sampled <= exact + 1e-9).all())
    assert torch.allclose(sampled, exact, atol=0.1)


def test_of_an_affine_network_all_bounds_are_exact():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4)).double()
    x = torch.rand(5, 3).double()
    errors = loss_errors(model, x, model(x).argmax(1), eps=0.1, classifier_relus=0)
    for estimate in ("interval", "pgd"):
        assert errors.values(estimate) == pytest.approx([0] * 5, abs=1e-9)
    region = Linf(eps=0.1).region(x)
    choices = torch.cartesian_prod(*3 * [torch.tensor([False, True])])  # [8, 3]
    corners = torch.where(choices.unsqueeze(1), region.lower, region.upper)  # [8, 5, 3]
    logits, y = model(corners), model(x).argmax(1)
    margins = (margin_rows(y, 4, dtype=torch.float64) @ logits.unsqueeze(-1)).squeeze(-1)
    assert errors.values("exact") == pytest.approx((-margins.amin((0, 2))).tolist(), abs=1e-9)


def test_the_least_of_several_forms_is_the_least_of_their_minima():
    model, x, y = small(2)
    graph = Precisions.of(model, x[:1]).proof
    for index in range(4):
        box = Linf(eps=0.2).region(x[index : index + 1].double())
        inner, label = crown.boxes(graph, box), int(y[index])
        every = worst_case.worst_case(graph, box, label, inner, timeout=20)
        rows = margin_rows(y[index : index + 1], 4, dtype=torch.float64)[0]
        one = worst_case.least(graph, box, rows, inner, timeout=20)
        assert one.upper == pytest.approx(every.upper, abs=1e-6)
        assert one.lower == pytest.approx(every.lower, abs=1e-6)
        assert one.lower <= one.upper
        assert one.status == worst_case.OPTIMAL


def test_what_time_did_not_suffice_for_is_open():
    model, x, y = small()
    errors = loss_errors(model, x, y, eps=0.3, seconds=1e-9)
    assert errors.mean("open") == 1
    assert errors.values("interval") == []
    assert errors.summary("interval").count == 0


def test_what_cannot_be_is_refused():
    model, x, y = small()
    with pytest.raises(ValueError, match="the threat model is l2: integer programs take boxes"):
        loss_errors(model, x, y, threat=L2(eps=0.1))
    with pytest.raises(ValueError, match="loss is 'hinge'"):
        LossErrors(loss="hinge")
    with pytest.raises(ValueError, match="seconds are 0"):
        LossErrors(seconds=0)
    with pytest.raises(ValueError, match="ratio of sabr is 2"):
        LossErrors(ratio=2)
