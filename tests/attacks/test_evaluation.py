"""Adversarial accuracy: exact if the answer is known, and the combination of its attacks."""

import math
import sys

import pytest
import torch
from torch import nn

from ctbench.attacks import APGD, PGD, AutoAttack, adversarial_accuracy
from ctbench.attacks.evaluation import DEFAULT
from ctbench.regions import L1, L2, FirstCoordinate, Linf, threat


def linear(classes: int = 2, width: int = 6):
    """A linear network, inputs near its boundaries and far from the edges of the data range, and right labels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(width, classes)).double()
    x = 0.45 + 0.1 * torch.rand(40, width, dtype=torch.float64)
    with torch.no_grad():
        net[0].bias.copy_(-net[0].weight.sum(1) / 2)
    return net, x, net(x).argmax(1)


def distances(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, order: float) -> torch.Tensor:
    """The distance to the nearest input of another class, in the norm that is dual to the norm of this order."""
    weight, logits = net[0].weight, net(x)
    gap = logits.gather(1, y[:, None]) - logits
    length = torch.linalg.vector_norm(weight[y][:, None] - weight[None], order, dim=-1)
    return (gap / length).nan_to_num(math.inf).amin(1).detach()


def places(mask: torch.Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def images(classes: int = 5):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, classes))
    x = torch.rand(12, 1, 6, 6)
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
def test_linear_networks_have_an_exact_answer(norm, order, classes):
    net, x, y = linear(classes)
    radii = distances(net, x, y, order)
    eps = radii.median().item()
    assert (radii - eps).abs().sort().values[1] > 0.002 * eps  # none but the median is near
    # the cross-entropy of several classes is steepest toward the mean of the others
    for attack in DEFAULT if classes == 2 else ("pgd", "apgd-dlr", "apgd-t"):
        for radius, expected in ((1.001 * eps, radii <= eps), (0.999 * eps, radii < eps)):
            evaluation = adversarial_accuracy(net, x, y, threat(norm, radius), attacks=[attack])
            assert evaluation.rounds[0].falsified == places(expected), (attack, radius)
            assert evaluation.adversarial_accuracy == 1 - expected.double().mean().item()


def test_segments_have_an_exact_answer():
    net, x, y = linear()
    reach = (net(x)[:, 0] - net(x)[:, 1]).abs() / (net[0].weight[0, 0] - net[0].weight[1, 0]).abs()
    eps = reach.median().item() + 1e-6
    evaluation = adversarial_accuracy(net, x, y, FirstCoordinate(eps, clip=None), attacks=["line-search"])
    assert evaluation.rounds[0].falsified == places(reach < eps)


def test_what_is_proved_is_not_attacked():
    net, x, y = linear()
    eps = distances(net, x, net(x).argmax(1), 1).median().item()
    everything = adversarial_accuracy(net, x, y, eps=eps, attacks=["pgd"])
    falsified = everything.rounds[0].falsified
    assert 3 < len(falsified) < len(x)
    evaluation = adversarial_accuracy(net, x, y, eps=eps, attacks=["pgd"], proved=falsified[:3])
    assert evaluation.rounds[0].falsified == falsified[3:]
    assert evaluation.rounds[0].tried == everything.rounds[0].tried - 3
    assert evaluation.adversarial_accuracy == pytest.approx(everything.adversarial_accuracy + 3 / len(x))


def test_a_radius_alone_stands_for_a_linf_ball():
    net, x, y = linear()
    ball = adversarial_accuracy(net, x, y, Linf(0.1), attacks=["pgd"])
    assert (
        adversarial_accuracy(net, x, y, eps=0.1, attacks=["pgd"]).rounds[0].falsified == ball.rounds[0].falsified != ()
    )
    for arguments in ({}, {"eps": 0.1, "threat": L2(0.3)}):
        with pytest.raises(ValueError, match=r"give a threat model, e.g. L2\(0.5\), or eps=0.1"):
            adversarial_accuracy(net, x, y, attacks=["pgd"], **arguments)
    with pytest.raises(ValueError, match=r"the threat model is 0\.1: give one such as Linf"):
        adversarial_accuracy(net, x, y, 0.1)


def test_each_feature_may_have_its_own_radius():
    net, x, y = linear()
    radii = torch.zeros(6).index_fill(0, torch.tensor([2]), 0.9)
    threat = Linf(radii)
    evaluation = adversarial_accuracy(net, x, y, threat, attacks=["pgd"])
    assert adversarial_accuracy(net, x, y, eps=radii.numpy(), attacks=["pgd"]).falsified_by == evaluation.falsified_by
    assert (
        0 < len(evaluation.rounds[0].falsified) <= len(adversarial_accuracy(net, x, y, Linf(0.9)).rounds[0].falsified)
    )


def test_each_attack_gets_what_the_former_left():
    net, x, y = linear(6)
    y = torch.cat([y[:30], (y[30:] + 1) % 6])
    attacks, eps = ("apgd-ce", "pgd", "apgd-t"), distances(net, x, net(x).argmax(1), 1).median().item()
    evaluation = adversarial_accuracy(net, x, y, eps=1.001 * eps, attacks=attacks)
    assert evaluation.labels == tuple(y.tolist())
    assert evaluation.predictions == tuple(net(x).argmax(1).tolist())
    assert evaluation.natural_accuracy == 0.75
    falsified = [set(done.falsified) for done in evaluation.rounds]
    assert [done.tried for done in evaluation.rounds] == [
        30,
        30 - len(falsified[0]),
        30 - len(falsified[0] | falsified[1]),
    ]
    assert falsified[0]
    assert falsified[1]
    assert not falsified[0] & falsified[1]
    assert list(evaluation.accuracies.values()) == [
        (30 - len(falsified[0])) / 40,
        *[(30 - len(falsified[0] | falsified[1])) / 40] * 2,  # nothing is left for the third
    ]
    assert evaluation.adversarial_accuracy == evaluation.accuracies["apgd-t"]
    assert [place for place, attack in enumerate(evaluation.falsified_by) if attack == "pgd"] == sorted(falsified[1])
    assert set(evaluation.falsified_by[30:]) == {None}
    assert evaluation.seconds == sum(done.seconds for done in evaluation.rounds) > 0

    alone = adversarial_accuracy(net, x, y, eps=1.001 * eps, attacks=attacks, alone=True)
    assert [done.tried for done in alone.rounds] == [30] * 3
    assert alone.accuracies == evaluation.accuracies
    assert alone.falsified_by == evaluation.falsified_by  # the first of them
    for name in attacks:
        single = adversarial_accuracy(net, x, y, eps=1.001 * eps, attacks=[name])
        assert alone.separate_accuracies[name] == single.adversarial_accuracy


def test_targets_are_all_other_classes():
    net = nn.Linear(1, 4).double()
    with torch.no_grad():  # the second class is nearly as good everywhere, and never better; the third above 0.7
        net.weight.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
        net.bias.copy_(torch.tensor([0.0, -0.1, -0.7, -5.0]))
    x, y = torch.full((20, 1), 0.5, dtype=torch.float64), torch.zeros(20, dtype=torch.long)
    assert adversarial_accuracy(net, x, y, eps=0.21, attacks=["apgd-t"]).adversarial_accuracy == 0
    assert adversarial_accuracy(net, x, y, eps=0.19, attacks=["apgd-t"]).adversarial_accuracy == 1


def test_every_attack_begins_with_the_same_seed(monkeypatch):
    net, x, y = linear()
    seeds = []

    def pgd(attack, objective, region, x, generator):
        seeds.append(generator.initial_seed())
        return x

    def autoattack(attack, net, x, y, threat):
        seeds.append((attack.version, attack.only, attack.seed, attack.batch_size, threat))
        return x

    monkeypatch.setattr(PGD, "__call__", pgd)
    monkeypatch.setattr(AutoAttack, "__call__", autoattack)
    attacks = ("autoattack-plus", "pgd")
    adversarial_accuracy(net, x, y, L2(0.1), attacks=attacks, seed=7, batch_size=40)
    assert seeds == [*[("plus", part, 7, 40, L2(0.1)) for part in ("apgd-ce", "fab")], 7, 7, 7]


@pytest.mark.parametrize(
    ("name", "version", "norm", "eps"), [("autoattack", "standard", "linf", 0.2), ("autoattack-plus", "plus", "l2", 1)]
)
def test_the_parts_of_autoattack_add_up_to_the_whole(name, version, norm, eps):
    net, x, y = images()
    net, x, y = net[1:], x[:6].flatten(1), y[:6]  # no image: 5000 questions of Square fewer
    evaluation = adversarial_accuracy(net, x, y, threat(norm, eps), attacks=[name], seed=4, batch_size=5)
    whole = AutoAttack(version=version, seed=4, batch_size=5)
    points = whole(net, x, y, threat(norm, eps))
    assert [attack is None for attack in evaluation.falsified_by] == (net(points).argmax(1) == y).tolist()
    assert 0 < evaluation.adversarial_accuracy < 1
    parts = whole.parts(x.shape[1:], 5, norm)
    assert [done.attack for done in evaluation.rounds] == [f"{name}/{part}" for part in parts]


def test_square_is_a_part_for_images():
    net, x, y = images()
    evaluation = adversarial_accuracy(net, x[:2], y[:2], eps=0.6, attacks=["autoattack"], alone=True)
    assert evaluation.rounds[-1].attack == "autoattack/square"
    assert evaluation.rounds[-1].falsified


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes):
    net, x, y = images(classes)
    net, x = net[1:], x.flatten(1)
    evaluation = adversarial_accuracy(net, x, y, eps=0.5, attacks=["apgd-t", "autoattack-plus"], alone=True)
    assert len(evaluation.rounds[0].falsified) > 6
    assert evaluation.adversarial_accuracy == 0
    assert ("autoattack-plus/apgd-dlr" in evaluation.accuracies) == (classes == 3)
    assert "autoattack-plus/apgd-t" not in evaluation.accuracies


def test_the_network_is_taken_as_at_test_time_and_left_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    net[1].running_mean.fill_(0.3)
    x = torch.rand(20, 6)
    y = net.eval()(x).argmax(1)
    expected = adversarial_accuracy(net, x, y, eps=0.05)
    before = {key: value.clone() for key, value in net.train().state_dict().items()}
    state = torch.get_rng_state()
    evaluation = adversarial_accuracy(net, x, y, eps=0.05)
    assert evaluation.falsified_by == expected.falsified_by
    assert evaluation.natural_accuracy == 1 > evaluation.adversarial_accuracy > 0
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.dtype == torch.float32 for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("eps", "accuracy"), [(0.125 - 1e-12, 1.0), (0.125 + 1e-12, 0.0)])
def test_points_are_moved_into_the_exact_region_and_replayed_in_double_precision(eps, accuracy, monkeypatch):
    net, x, y = nn.Linear(1, 2), torch.tensor([[0.5]]), torch.tensor([0])
    with torch.no_grad():  # right below 0.625, which single precision cannot tell from the edge of the region
        net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        net.bias.copy_(torch.tensor([1.25, 0.0]))
    monkeypatch.setattr(PGD, "__call__", lambda *_: torch.tensor([[1.0]]))
    assert adversarial_accuracy(net, x, y, eps=eps, attacks=["pgd"]).adversarial_accuracy == accuracy


def test_another_implementation_has_a_say():
    net, x, y = linear()
    eps = distances(net, x, y, 1).median().item()
    arguments = {"eps": 1.001 * eps, "attacks": ["pgd"]}
    usual = adversarial_accuracy(net, x, y, **arguments)
    assert adversarial_accuracy(net, x, y, **arguments, replay=net).falsified_by == usual.falsified_by
    stubborn = adversarial_accuracy(net, x, y, **arguments, replay=lambda point: torch.zeros(1, 2))
    assert stubborn.adversarial_accuracy == 1 > usual.adversarial_accuracy


def test_logits_that_are_not_finite_are_no_prediction():
    net, x, y = linear()
    with torch.no_grad():
        net[0].weight.fill_(1e308)
    evaluation = adversarial_accuracy(net, x * 0 + 1, y, eps=0.0, attacks=["pgd"])
    assert set(evaluation.predictions) == {-1}
    assert evaluation.natural_accuracy == evaluation.adversarial_accuracy == evaluation.rounds[0].tried == 0


def test_whoever_watches_hears_of_every_batch():
    net, x, y = linear()
    heard = []
    evaluation = adversarial_accuracy(
        net, x, y, eps=0.001, attacks=["pgd"], batch_size=20, on_batch=lambda *told: heard.append(told)
    )
    standing = 40 - len(evaluation.rounds[0].falsified)
    assert len(heard) == 6  # two batches of each of three starts
    assert heard[-1] == ("pgd", standing)


@pytest.mark.parametrize("name", DEFAULT)
def test_the_strength_of_attacks_can_be_chosen(name, monkeypatch):
    net, x, y = images()
    strengths = []

    def attack(self, objective, region, x, generator=None):
        strengths.append(self.steps)
        return x

    for kind in (PGD, APGD):
        monkeypatch.setattr(kind, "__call__", attack)
    adversarial_accuracy(net, x, y, eps=0.1, attacks=[name])
    usual = len(strengths)
    assert set(strengths) == {40 if name == "pgd" else 100}
    strengths.clear()
    adversarial_accuracy(net, x, y, eps=0.1, attacks=[name], steps=7, restarts=2)
    starts = {"pgd": 3, "apgd-t": 1}.get(name, 5)
    assert strengths == [7] * (usual // starts * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": ["pdg"]}, "attacks are pdg: name some of pgd, apgd-ce, apgd-dlr, apgd-t, line-search, autoattack"),
        ({"attacks": ["pgd", "pgd"]}, "each once"),
        ({"attacks": []}, "attacks are none: name some of"),
        ({"eps": -0.1}, "eps is -0.1: a radius must be"),
        ({"eps": [0.1, -0.1]}, "eps holds NaN, infinite or negative values"),
        ({"eps": [0.1, 0.1]}, r"eps has the shape \[2\] but one input has \[6\]"),
        ({"x": torch.full((40, 6), 2.0).double()}, "give raw pixels"),
        ({"x": torch.zeros(40, 5).double()}, "takes 6 features"),
        ({"y": torch.full((40,), 2)}, "label 2 of sample 0 is out of range"),
        ({"y": torch.zeros(3, dtype=torch.long)}, r"there are 40 inputs of shape \[6\] and 3 labels"),
        ({"x": torch.zeros(0, 6).double(), "y": torch.zeros(0, dtype=torch.long)}, "at least one"),
        ({"model": nn.Linear(6, 1).double()}, "1 output: a margin needs two classes"),
        ({"proved": [3, 40]}, "proved names sample 40 of 40: give positions in x"),
        ({"seed": -1}, "seed must be in"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"steps": 0}, "steps and restarts must be >= 1 or None, got 0 and None"),
        ({"restarts": 0}, "steps and restarts must be >= 1 or None, got None and 0"),
        (
            {"attacks": ["pgd", "autoattack"], "steps": 9},
            "steps and restarts are for pgd.*, not for autoattack",
        ),
        ({"attacks": ["pgd", "line-search"]}, "a line search needs segments"),
        (
            {"attacks": ["pgd", "autoattack"], "eps": None, "threat": L1(0.1)},
            "norm is 'l1': AutoAttack is for linf and l2",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_attacked(changes, message, monkeypatch):
    monkeypatch.setattr(PGD, "__call__", None)
    net, x, y = linear()
    arguments = {"model": net, "x": x, "y": y, "eps": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        adversarial_accuracy(**arguments)


def test_a_missing_package_is_an_error_before_anything_is_attacked(monkeypatch):
    monkeypatch.setattr(PGD, "__call__", None)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    net, x, y = linear()
    with pytest.raises(ValueError, match="pip install pyautoattack, or use APGD"):
        adversarial_accuracy(net, x, y, eps=0.1, attacks=["pgd", "autoattack"])
