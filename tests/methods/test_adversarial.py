"""The variants of adversarial training, against their formulas written in probabilities."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from ctbench import attacks
from ctbench.methods.arow import ARoW
from ctbench.methods.edac import EDAC
from ctbench.methods.mart import MART, boosted_cross_entropy
from ctbench.methods.pgd import PGD

FIXED = attacks.PGD(steps=0)


def answers(setting):
    """The probabilities [B, K] at the clean and at the attacked points of FIXED."""
    net, logits = setting.frozen()
    batch = setting.batch(logits)
    return logits.softmax(1), net(batch.region.start(batch.x, 1, batch.generator)[0]).softmax(1)


def divergence(p, q):
    return (p * (p / q).log()).sum(1)


def test_edac_is_pgd_training_with_a_first_loss(setting, same_method):
    same_method(EDAC(attack=FIXED), PGD(attack=FIXED))
    net, logits = setting.frozen()
    first = EDAC(size=0.7, attack=FIXED).prelude(net, setting.batch(logits))
    batch = setting.batch(logits)
    attacked = net(batch.region.start(batch.x, 1, batch.generator)[0])
    spread = ((attacked - attacked.mean(1, keepdim=True)).square().sum(1) / 3).sqrt()
    assert first.item() == pytest.approx(0.7 * spread.mean().item())
    assert PGD().prelude(net, batch) is None


def test_mart_in_probabilities(setting):
    clean, attacked = answers(setting)
    rows = range(len(setting.y))
    right = attacked[rows, setting.y]
    wrong = attacked.scatter(1, setting.y.unsqueeze(1), 0).amax(1)
    doubt = 1 - clean[rows, setting.y]
    expected = -right.log() - (1 - wrong).log() + 5 * divergence(clean, attacked) * doubt
    torch.testing.assert_close(setting.run(MART(attack=FIXED)).per_sample, expected)


def test_arow_in_probabilities(setting):
    clean, attacked = answers(setting)
    vulnerability = 1 - attacked[range(len(setting.y)), setting.y]
    target = torch.full_like(clean, 0.2 / 4).scatter(1, setting.y.unsqueeze(1), 0.8 + 0.2 / 4)
    expected = -(target * clean.log()).sum(1) + 7 * divergence(clean, attacked) * vulnerability
    torch.testing.assert_close(setting.run(ARoW(attack=FIXED)).per_sample, expected)


def test_arow_attacks_the_divergence(setting):
    """Its point is further from the clean answer than the point of the largest cross-entropy."""
    points = []

    @dataclass(frozen=True, kw_only=True)
    class Recording(attacks.PGD):
        name: ClassVar[str] = "recording"

        def __call__(self, objective, *arguments):
            point = super().__call__(objective, *arguments)
            points.append((point, objective(point[None])[0]))
            return point

    attack = Recording(steps=20, restarts=4)
    for method in (ARoW(attack=attack), MART(attack=attack)):
        setting.run(method)
    net, logits = setting.frozen()
    by_divergence, by_loss = (divergence(logits.softmax(1), net(point).softmax(1)) for point, _ in points)
    torch.testing.assert_close(points[0][1], by_divergence)
    assert (by_divergence >= by_loss - 1e-6).all()
    assert (by_divergence > by_loss + 1e-4).any()


def test_the_boosted_cross_entropy_is_finite_for_sure_answers():
    logits = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 0.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0, 0]))
    assert loss.tolist() == [0.0, 2000.0 + 1000.0]  # -log(1 - p_k): all that is left is the third class
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (EDAC, {"size": -1.0}, "size of edac is -1"),
        (MART, {"weight": float("nan")}, "weight of mart is nan"),
        (ARoW, {"weight": -1.0}, "weight of arow is -1"),
        (ARoW, {"smoothing": 2.0}, "smoothing of arow is 2"),
    ],
)
def test_fields_are_checked(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)
