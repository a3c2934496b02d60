"""Inputs of any strides give what contiguous inputs give: channels that come last, slices, expanded inputs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ctbench
from ctbench.attacks import AutoAttack, adversarial_accuracy
from ctbench.datasets import Data, Digits, Images
from ctbench.domains import domains
from ctbench.regions import threat
from ctbench.verify import FAST_STAGES, certify

STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "first axis last": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "slice": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, ::2, ::2],
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).double().eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=STRIDED)
def strided(request: pytest.FixtureRequest, x: Tensor) -> Tensor:
    tensor = STRIDED[request.param](x)
    assert tensor.stride() != x.stride()
    assert torch.equal(tensor, x)
    return tensor


@pytest.mark.parametrize("domain", sorted(name for name, kind in domains().items() if "ctbench" in kind.__module__))
def test_bounds(model, x, strided, domain):
    def margins(x: Tensor) -> Tensor:
        return ctbench.margin_bounds(model, x, torch.arange(4), eps=0.05, domain=domain)

    torch.testing.assert_close(margins(strided), margins(x))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_bounds_of_a_box_and_in_every_norm(model, x, strided, norm):
    def both(x: Tensor) -> list[Tensor]:
        region = ctbench.Box(x - 0.1, x + 0.1)
        return [*ctbench.bounds(model, x, threat(norm, 0.05)), *ctbench.bounds(model, region)]

    for bound, expected in zip(both(strided), both(x), strict=True):
        torch.testing.assert_close(bound, expected)


def test_expanded_inputs(model, x):
    one = x[:1].expand(4, 3, 8, 8)
    lower, _ = ctbench.bounds(model, one, eps=0.05)
    torch.testing.assert_close(lower, ctbench.bounds(model, one.contiguous(), eps=0.05).lower)
    grey = x[:, :1].expand(4, 3, 8, 8)
    assert len(certify(model, grey, model(grey).argmax(1), eps=0.01, stages=FAST_STAGES)) == 4


def test_attacks(model, x, strided):
    def evaluated(x: Tensor) -> tuple[str | None, ...]:
        return adversarial_accuracy(model, x, model(x).argmax(1), eps=0.05).falsified_by

    assert evaluated(strided) == evaluated(x)


@pytest.mark.parametrize(("part", "norm"), [("apgd-ce", "linf"), ("fab", "l2"), ("square", "l2"), ("square", "linf")])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_autoattack(model, x, strided, part, norm, memory_format):
    pytest.importorskip("pyautoattack")
    model = model.float().to(memory_format=memory_format)
    # wide enough for Square to end early: it asks 5000 times about a sample that withstands
    eps, y = {"linf": 0.4, "l2": 3.0}[norm], model(x.float()).argmax(1)
    attack = AutoAttack(version="plus", only=part)
    points, expected = (attack(model, each.float(), y, threat(norm, eps)) for each in (strided, x))
    assert points.shape == x.shape
    assert torch.equal(model(points).argmax(1) == y, model(expected).argmax(1) == y)
    assert (model(points).argmax(1) != y).any()
    model.double().to(memory_format=torch.contiguous_format)


def test_certify(model, x, strided):
    def verdicts(x: Tensor) -> list[tuple[str, str]]:
        return [(record.verdict, record.digest) for record in certify(model, x, model(x).argmax(1), eps=0.02)]

    assert verdicts(strided) == verdicts(x)


def test_training(tiny, tmp_path, monkeypatch):
    def strided(self: Digits, root: Path | None = None) -> Data:
        data = load(self, root)
        parts = (Images(STRIDED["transposed"](part.inputs), part.labels) for part in (data.train, data.test))
        return replace(data, train=next(parts), test=next(parts))

    load, recipe = Digits.load, tiny(epochs=1)
    run = ctbench.train(recipe, out=tmp_path / "contiguous", quiet=True)
    monkeypatch.setattr(Digits, "load", strided)
    other = ctbench.train(recipe, out=tmp_path / "strided", quiet=True)
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.model(x), run.model(x), rtol=1e-3, atol=1e-3)  # other kernels round otherwise
