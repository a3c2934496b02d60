"""The measurements of a trial: exact errors if they can be computed, and quantities counted by hand."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctbench.attacks import APGD
from ctbench.datasets import Digits, Separable, Spheres
from ctbench.experiments import Measures, Trial, errors, measure, measuring
from ctbench.methods.pgd import PGD
from ctbench.regions import L2, FirstCoordinate, Linf, RandomSegments
from ctbench.training import SGD, train

ATTACKS = ("pgd",)


def network(*sizes: int, seed: int = 0) -> nn.Sequential:
    """Linear layers of these sizes, ReLUs between them."""
    torch.manual_seed(seed)
    layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.7)
    return nn.Sequential(*(part for layer in layers for part in (nn.ReLU(), layer)))[1:]


def samples(model: nn.Module, count: int = 200, flipped: float = 0.1) -> tuple[Tensor, Tensor]:
    """Points, and the network's own answers there, some of them changed."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    y[: int(flipped * count)] = (y[: int(flipped * count)] + 1) % 2
    return x, y


def followed(trial: Trial, tmp_path) -> list[dict[str, Tensor]]:
    """The weights after each epoch."""
    states = []

    def note(_: object, model: nn.Module) -> None:
        states.append({name: value.clone() for name, value in model.state_dict().items()})

    train(trial.recipe, out=tmp_path / "run", quiet=True, on_epoch=note)
    return states


def test_errors_on_segments_are_those_of_a_fine_grid():
    model, threat = network(4, 12, 3), RandomSegments(eps=1.0, count=2, seed=4)
    x, y = samples(model)
    shares = torch.linspace(-1, 1, 2001).double().view(-1, 1, 1)
    exact = network(4, 12, 3).double()
    falsified = torch.zeros(len(x), dtype=torch.bool)
    for direction in threat.region(x.double()).directions:
        points = x.double() + threat.eps * shares * direction
        falsified |= (exact(points).argmax(-1) != y).any(0)
    measured = errors(model, x, y, threat, attacks=())
    assert measured["standard_error"] == 0.1
    assert measured["robust_error"] == falsified.double().mean().item()
    assert 0.1 < measured["robust_error"] < measured["certified_error"] < 1


@pytest.mark.parametrize("threat", [L2(eps=0.4, clip=None), Linf(eps=0.3, clip=None), RandomSegments(eps=1.0, count=3)])
@pytest.mark.parametrize("sizes", [(4, 10, 2), (4, 6, 5, 3)])
def test_the_robust_error_is_between_the_standard_and_the_certified_one(threat, sizes):
    model = network(*sizes, seed=2)
    measured = errors(model, *samples(model, count=60), threat, attacks=ATTACKS)
    assert 0.1 == measured["standard_error"] < measured["robust_error"] <= measured["certified_error"] < 1


@pytest.mark.parametrize(
    ("threat", "reach"), [(L2(eps=0.3, clip=None), 2), (Linf(eps=0.2, clip=None), 1), (FirstCoordinate(eps=0.7), 0)]
)
def test_errors_of_a_linear_network_are_those_of_its_closed_form(threat, reach):
    model = network(4, 2)
    x, y = samples(model)
    weight, bias = model[0].weight.detach().double(), model[0].bias.detach().double()
    normal = weight[1] - weight[0]
    margin = (2 * y - 1) * (x.double() @ normal + bias[1] - bias[0])
    least = margin - threat.eps * (normal.norm(p=reach) if reach else normal[0].abs())
    expected = (least < 0).double().mean().item()
    assert 0.1 < expected < 0.9
    assert errors(model, x, y, threat, attacks=ATTACKS) == {
        "standard_error": 0.1,
        "robust_error": expected,
        "certified_error": expected,
    }


def test_errors_in_parts_are_those_of_the_whole(monkeypatch):
    model = network(4, 12, 2)
    x, y = samples(model, count=37)
    whole = errors(model, x, y, RandomSegments(eps=1.5, count=2), attacks=())
    monkeypatch.setattr(measuring, "CHUNK", 4 * 5 + 3)
    assert errors(model, x, y, RandomSegments(eps=1.5, count=2), attacks=()) == whole


@pytest.mark.parametrize(
    ("threat", "reach"),
    [
        (L2(eps=0.4, clip=None), lambda weight: weight.norm(dim=1)),
        (Linf(eps=0.2, clip=None), lambda weight: weight.abs().sum(1)),
        (FirstCoordinate(eps=0.7), lambda weight: weight[:, 0].abs()),
    ],
)
def test_the_trained_network_is_measured(trial, tmp_path, threat, reach: Callable[[Tensor], Tensor]):
    """Neurons of the first layer switch where |<w, x> + b| is at most eps times the norm of w that fits."""
    shrinking = trial(threat=threat, measures=Measures(attacks=ATTACKS), optimizer=SGD(lr=0.4))
    found, states = measure(shrinking), followed(shrinking, tmp_path)
    data = shrinking.recipe.dataset.load()
    (x, y), shares = data.train[:], []
    for state in states:
        weight, bias, *_ = state.values()
        shares.append(((x @ weight.T + bias).abs() <= threat.eps * reach(weight)).double().mean().item())
    assert len(set(shares)) > 1
    assert found["unstable"] == shares[-1]
    assert found["unstable_sum"] == pytest.approx(sum(shares), abs=1e-12)
    model = shrinking.recipe.network.build((3,), 2)
    model.load_state_dict(states[-1])
    assert found["train_error"] == (model(x).argmax(1) != y).double().mean().item()
    assert {name: found[name] for name in ("standard_error", "robust_error", "certified_error")} == errors(
        model, *data.test[:], threat, attacks=ATTACKS
    )
    assert set(found) == {
        "standard_error",
        "robust_error",
        "certified_error",
        "train_error",
        "unstable",
        "unstable_sum",
    }


def test_what_is_followed_has_a_number_for_each_epoch(trial):
    shown = trial(threat=L2(eps=0.4, clip=None), measures=Measures(attacks=ATTACKS, followed=30))
    measured = measure(shown)
    epochs = measured.pop("epochs")
    assert set(epochs) == {"standard_error", "robust_error", "certified_error", "cosine"}
    assert all(len(numbers) == 3 for numbers in epochs.values())
    assert {name: measured[name] for name in epochs if name != "cosine"} == {
        name: numbers[-1] for name, numbers in epochs.items() if name != "cosine"
    }
    assert all(-1 <= cosine <= 1 for cosine in epochs["cosine"])
    assert measured == measure(trial(threat=L2(eps=0.4, clip=None), measures=Measures(attacks=ATTACKS)))


def test_some_of_the_test_samples_are_followed(trial, tmp_path):
    shown = trial(measures=Measures(followed=7))
    epochs = measure(shown)["epochs"]
    model = train(shown.recipe, out=tmp_path / "run", quiet=True).model
    last = errors(model, *shown.recipe.dataset.load().test[:7], shown.recipe.threat, attacks=())
    assert {name: epochs[name][-1] for name in last} == last


def test_perturbations_along_the_signal_point_to_the_other_class(trial):
    """If a network has learnt that the first coordinate separates the classes, attacks move along this coordinate."""
    data = Separable(dimension=4, samples=20, test_samples=5, margin=3.0, sigma=0.1)
    measured = measure(trial(dataset=data, threat=FirstCoordinate(eps=0.1), measures=Measures(followed=5), epochs=5))
    assert measured["train_error"] == 0
    assert measured["epochs"]["cosine"][-1] == pytest.approx(1, abs=1e-6)


def test_a_signal_that_is_not_known_is_refused(trial):
    with pytest.raises(ValueError, match="the signal of digits is not known: only follow trials on synthetic data"):
        measure(trial(dataset=Digits(), threat=Linf(eps=0.01), batch_size=1000, measures=Measures(followed=5)))


@pytest.mark.parametrize(
    ("radius", "rate", "said"), [(1.0, 1e30, "epoch 2"), (1e3, 3e38, "holds NaN or infinite values")]
)
def test_what_diverges_says_so_and_nothing_else(trial, radius, rate, said):
    """The loss is not a number, or the loss is a number but the weights after its step are not."""
    data = Spheres(dimension=3, samples=20, test_samples=30, inner_radius=radius, margin=2.0)
    measured = measure(trial(dataset=data, optimizer=SGD(lr=rate)))
    assert list(measured) == ["diverged"]
    assert said in measured["diverged"]


@pytest.mark.parametrize("threat", [L2(eps=0.4, clip=None), RandomSegments(eps=0.4, count=2)])
def test_the_seed_decides_everything(trial, threat):
    def measured(seed: int) -> dict[str, Any]:
        attack = PGD(attack=APGD(steps=3))
        return measure(trial(seed=seed, threat=threat, method=attack, measures=Measures(attacks=ATTACKS, followed=5)))

    assert measured(0) == measured(0)
    assert measured(0) != measured(1)
