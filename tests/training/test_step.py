"""An optimisation step: its loss, its update, what is scheduled, a prelude before it."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.training_runs import (
    OF_BOXES,
    STEPS,
    Watched,
    one_step,
    same,
    single,
    untimed,
    weights,
)
from torch import nn

from ctbench.datasets import stratified_split
from ctbench.graph.ops import Conv2d, ScaledConv2d
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.methods.ibp import IBP
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, MLP
from ctbench.regions import Linf
from ctbench.results import jsonl
from ctbench.training import (
    SGD,
    Adam,
    ConstantRamp,
    LinearRamp,
    Schedule,
    SmoothRamp,
    train,
)
from ctbench.training.step import Stepper

# ---------------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize(("network", "steps"), [(CNN3(width=2), 1), (MLP(hidden=(7,)), 3)], ids=["cnn3", "mlp"])
def test_a_standard_step_is_the_plain_step_of_torch(tiny, tmp_path, network, steps):
    trainer, x, y = single(tiny(network=network, method=Standard(), shi=0.0), tmp_path)
    plain = copy.deepcopy(trainer.model).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(steps):
        measured = one_step(trainer, x, y, 0.05)
        optimizer.zero_grad()
        logits = plain(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 10.0)
        optimizer.step()
        for name in ("loss", "natural_loss", "robust_loss"):
            assert measured[name] == pytest.approx(loss.item(), abs=1e-6)
        accuracy = (logits.argmax(1) == y).double().mean().item()
        assert measured["natural_accuracy"] == measured["robust_accuracy"] == pytest.approx(accuracy)
    # the gradient of a bias before a batch norm is 0 except for rounding, which Adam's first step blows up
    noise = {"0.bias", "3.bias"} if network.name == "cnn3" else set()
    gradients = dict(trainer.model.named_parameters())
    assert all(gradients[name].grad.abs().max() < 1e-6 for name in noise)
    for name, value in plain.state_dict().items():
        if name not in noise:
            torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=0, atol=1e-6)


def gradient(model: nn.Module, weights: dict[str, torch.Tensor], x, y) -> dict[str, torch.Tensor]:
    """That of the natural loss of a network with these weights."""

    def loss(weights):
        return F.cross_entropy(torch.func.functional_call(model, weights, x), y)

    return torch.func.grad(loss)(weights)


def test_steps_of_sgd_are_those_of_torch(tiny, tmp_path):
    sgd = SGD(lr=0.1, momentum=0.95, weight_decay=0.01, clip_norm=1e9)
    trainer, x, y = single(tiny(network=MLP(hidden=(7,)), method=Standard(), shi=0.0, optimizer=sgd), tmp_path)
    weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    speed = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(3):
        gradients = gradient(trainer.model, weights, x, y)
        speed = {name: 0.95 * speed[name] + gradients[name] + 0.01 * weights[name] for name in weights}
        weights = {name: weights[name] - 0.1 * speed[name] for name in weights}
        one_step(trainer, x, y, 0.05)
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value.detach(), weights[name], rtol=0, atol=1e-6)


def by_hand(model: nn.Sequential, x, y, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Natural loss, IBP loss and sum of weights of Flatten, Linear, ReLU, Linear."""
    first, last = model[1], model[3]
    natural = F.cross_entropy(model(x), y)
    low, high = (x - eps).clamp(0, 1).flatten(1), (x + eps).clamp(0, 1).flatten(1)
    up, down = first.weight.clamp(min=0), first.weight.clamp(max=0)
    l, u = low @ up.T + high @ down.T + first.bias, high @ up.T + low @ down.T + first.bias  # noqa: E741
    l, u = l.relu(), u.relu()  # noqa: E741
    worst = []
    for i, label in enumerate(y.tolist()):
        rows = torch.stack([last.weight[k] - last.weight[label] for k in range(10)])
        offsets = torch.stack([last.bias[k] - last.bias[label] for k in range(10)])
        worst.append(rows.clamp(min=0) @ u[i] + rows.clamp(max=0) @ l[i] + offsets)
    robust = torch.stack(worst).logsumexp(1).mean()
    return natural, robust, first.weight.abs().sum() + last.weight.abs().sum()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("l1", [0.0, 1e-3])
def test_the_loss_is_composed_as_the_recipe_says(tiny, tmp_path, weight, l1):
    recipe = tiny(network=MLP(hidden=(7,)), robust_weight=weight, l1=l1, shi=0.0, optimizer=Adam(clip_norm=1e9))
    trainer, x, y = single(recipe, tmp_path)
    other = copy.deepcopy(trainer.model)
    natural, robust, l1_sum = by_hand(other, x, y, 0.03)
    loss = (1 - weight) * natural + weight * robust + l1 * l1_sum
    gradients = torch.autograd.grad(loss, list(other.parameters()))
    measured = one_step(trainer, x, y, 0.03)
    assert measured["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert measured["natural_loss"] == pytest.approx(natural.item(), rel=1e-5)
    assert measured["robust_loss"] == pytest.approx(robust.item(), rel=1e-5)
    for parameter, expected in zip(trainer.stepper.parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_by_their_total_norm(tiny, tmp_path):
    gradients = {}
    for clip_norm in (1e-3, 1e9):
        trainer, x, y = single(tiny(optimizer=Adam(clip_norm=clip_norm), shi=0.0), tmp_path)
        one_step(trainer, x, y, 0.05)
        gradients[clip_norm] = torch.cat([p.grad.flatten() for p in trainer.stepper.parameters])
    free, clipped = gradients[1e9], gradients[1e-3]
    assert free.norm() > 0.1
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-3, atol=1e-5)


def test_short_gradients_are_not_clipped(tiny, tmp_path):
    gradients = []
    for clip_norm in (1e3, 1e9):
        trainer, x, y = single(tiny(optimizer=Adam(clip_norm=clip_norm), shi=0.0), tmp_path)
        one_step(trainer, x, y, 0.05)
        gradients.append([p.grad for p in trainer.stepper.parameters])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_regulariser_of_shi_is_in_force_while_the_radius_grows(tiny, tmp_path):
    run = train(tiny(ramp=LinearRamp(start=0.0, end=2.0)), out=tmp_path, quiet=True)
    extra = [record["loss"] - record["robust_loss"] for record in jsonl.read(run.folder.metrics)]
    assert extra[0] > 1e-3
    assert extra[1] > 1e-4
    assert abs(extra[2]) < 1e-9


def test_the_regulariser_fades_with_the_radius(tiny, tmp_path):
    extra = []
    for eps in (0.01, 0.04, 0.05):
        trainer, x, y = single(tiny(shi=0.5, robust_weight=1.0), tmp_path)
        measured = one_step(trainer, x, y, eps)
        extra.append(
            (measured["loss"] - measured["robust_loss"]) / (1 - eps / 0.05)
            if eps < 0.05
            else measured["loss"] - measured["robust_loss"]
        )
    assert extra[0] > 0.01
    assert extra[1] > 0.01
    assert extra[2] == pytest.approx(0, abs=1e-6)


def test_the_regulariser_at_radius_zero_is_that_of_a_tiny_one(tiny, tmp_path):
    losses = []
    for eps in (0.0, 1e-6):
        trainer, x, y = single(tiny(shi=0.5), tmp_path)
        measured = one_step(trainer, x, y, eps)
        losses.append(measured["loss"] - measured["robust_loss"])
    assert losses[0] > 0.01
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_regulariser_needs_boxes(tiny, tmp_path):
    message = "shi is 0.5 but the method 'standard' computes no interval bounds: set shi=0"
    with pytest.raises(ValueError, match=message):
        train(tiny(method=Standard()), out=tmp_path, quiet=True)


def test_what_a_method_returns_is_checked(tiny, tmp_path):
    class Bare(Watched):
        name: ClassVar[str] = "bare"

        def __call__(self, net, batch: Batch):
            return super().__call__(net, batch).per_sample

    with pytest.raises(ValueError, match="the method 'bare' returned a Tensor: it must return a RobustLoss"):
        train(tiny(method=Bare(), shi=0.0), out=tmp_path / "run", quiet=True)


def test_a_step_sees_batch_norms_folded_into_their_convolutions(tiny, tmp_path):
    seen = list[set[type]]()

    @dataclass(frozen=True, kw_only=True)
    class Ops(Watched):
        name: ClassVar[str] = "ops"

        def prelude(self, net, batch: Batch):
            seen.append({type(node.op) for node in net.nodes})

        def __call__(self, net, batch: Batch) -> RobustLoss:
            seen.append({type(node.op) for node in net.nodes})
            return super().__call__(net, batch)

    train(tiny(method=Ops(), network=CNN3(width=2), shi=0.0, epochs=1), out=tmp_path / "run", quiet=True)
    assert len(seen) == 2 * STEPS
    assert all(ScaledConv2d in ops and Conv2d not in ops for ops in seen)


# ---------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("train_eps", [None, 0.08])
def test_every_step_has_the_radius_of_the_ramp(tiny, tmp_path, train_eps):
    recipe = tiny(
        method=Watched(), shi=0.0, ramp=SmoothRamp(start=0.5, end=2.0), threat=Linf(eps=0.05), train_eps=train_eps
    )
    run = train(recipe, out=tmp_path, quiet=True)
    final = 0.05 if train_eps is None else 0.08
    assert recipe.final_eps == final
    expected = [final * recipe.ramp.share(step, STEPS) for step in range(3 * STEPS)]
    assert expected[3] == 0
    assert expected[12:] == [final] * 6
    for call, eps in zip(Watched.calls, expected, strict=True):
        torch.testing.assert_close(call.region.lower, (call.x - eps).clamp(0, 1), rtol=0, atol=1e-7)
        torch.testing.assert_close(call.region.upper, (call.x + eps).clamp(0, 1), rtol=0, atol=1e-7)
    assert [record["eps"] for record in jsonl.read(run.folder.metrics)] == expected[5::6]


def test_the_learning_rate_falls_at_its_milestones(tiny, tmp_path, monkeypatch):
    used, step = [], Stepper.step

    def noting(self, *args, **kwargs):
        used.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Stepper, "step", noting)
    recipe = tiny(epochs=4, optimizer=Adam(lr=0.01, milestones=(1, 3), decay=0.1))
    run = train(recipe, out=tmp_path, quiet=True)
    expected = [0.01, 0.001, 0.001, 0.0001]
    assert [record["lr"] for record in jsonl.read(run.folder.metrics)] == pytest.approx(expected, rel=1e-12)
    assert used == pytest.approx([lr for lr in expected for _ in range(STEPS)], rel=1e-12)


# ---------------------------------------------------------------------------------------------- warm-up, prelude


@dataclass(frozen=True, kw_only=True)
class Shifted(Method):
    """Standard training with a prelude: the mean of the squared logits, times a factor."""

    name: ClassVar[str] = "shifted"
    factor: float = 1.0
    seen: ClassVar[list[tuple[str, torch.Tensor]]] = []

    def __call__(self, net, batch: Batch) -> RobustLoss:
        self.seen.append(("loss", batch.logits.detach()))
        return Standard()(net, batch)

    def prelude(self, net, batch: Batch) -> torch.Tensor:
        self.seen.append(("prelude", batch.logits.detach()))
        return self.factor * batch.logits.square().mean()


def test_the_warmup_is_in_force_while_the_radius_grows(tiny, tmp_path):
    recipe = tiny(method=Watched(), warmup=IBP(), ramp=SmoothRamp(start=0.0, end=1.5), epochs=3, validation=0.1)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    steps = math.ceil(len(stratified_split(recipe.dataset.load().train, fraction=0.1, seed=0)[0]) / 256)
    assert len(Watched.calls) == steps + 1  # the third epoch, and its validation
    metrics = jsonl.read(run.folder.metrics)
    assert [record.keys() >= OF_BOXES for record in metrics] == [True, True, False]
    assert [record["loss"] > record["robust_loss"] + 1e-9 for record in metrics] == [True, True, False]  # Shi's R
    ibp = train(tiny(ramp=recipe.ramp, epochs=3, validation=0.1), out=tmp_path / "ibp", quiet=True)
    assert untimed(ibp.folder.metrics)[:2] == untimed(run.folder.metrics)[:2]


def test_the_warmup_needs_boxes_for_the_regulariser(tiny, tmp_path):
    with pytest.raises(ValueError, match="the method 'standard' computes no interval bounds"):
        train(tiny(warmup=Standard()), out=tmp_path, quiet=True)


def test_a_prelude_is_a_step_of_its_own_before_the_main_one(tiny, tmp_path):
    Shifted.seen.clear()
    recipe = tiny(method=Shifted(factor=50.0), shi=0.0, optimizer=Adam(lr=0.01, clip_norm=0.1))
    trainer, x, y = single(recipe, tmp_path)
    plain = copy.deepcopy(trainer.model).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(2):
        one_step(trainer, x, y, 0.05)
        optimizer.zero_grad()
        first = plain(x)
        (50 * first.square().mean()).backward()  # longer than clip_norm, and not clipped
        assert torch.cat([p.grad.flatten() for p in plain.parameters()]).norm() > 1
        optimizer.step()
        optimizer.zero_grad()
        second = plain(x)
        F.cross_entropy(second, y).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
        (kind, before), (other, after) = Shifted.seen
        assert (kind, other) == ("prelude", "loss")
        torch.testing.assert_close(before, first.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(after, second.detach(), rtol=0, atol=1e-5)
        Shifted.seen.clear()
    noise = {"0.bias", "3.bias"}  # their gradient is 0 except for rounding, which Adam's first step blows up
    for name, value in plain.state_dict().items():
        if name not in noise and "running_mean" not in name:  # that of a layer's input moves with its bias
            torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_the_prelude_of_a_method_that_is_not_in_force_is_not_made(tiny, tmp_path):
    Shifted.seen.clear()
    train(tiny(method=Shifted(), warmup=IBP(), ramp=SmoothRamp(end=1.0), epochs=2), out=tmp_path, quiet=True)
    assert [kind for kind, _ in Shifted.seen] == ["prelude", "loss"] * STEPS


# ---------------------------------------------------------------------------------------------- parts, schedules


@pytest.mark.parametrize("changes", [{}, {"network": MLP(hidden=(7,))}], ids=["batch norm", "plain"])
def test_accumulated_steps_train_the_same_network(tiny, tmp_path, changes):
    changes |= {"shi": 0.0, "epochs": 1, "optimizer": Adam(lr=1e-3)}
    whole = train(tiny(**changes), out=tmp_path / "whole", quiet=True)
    parts = train(tiny(accumulate=3, **changes), out=tmp_path / "parts", quiet=True)
    for record, other in zip(untimed(whole.folder.metrics), untimed(parts.folder.metrics), strict=True):
        assert record == pytest.approx(other, rel=1e-5)
    assert not same(weights(whole), weights(parts))  # except for rounding


def test_a_scheduled_weight_is_in_force_in_every_step(tiny, tmp_path):
    schedule = Schedule(path="robust_weight", start_value=0.0, end_value=1.0, ramp=ConstantRamp(end=1.0))
    run = train(tiny(shi=0.0, schedules=(schedule,)), out=tmp_path, quiet=True)
    first, second, _ = jsonl.read(run.folder.metrics)
    assert first["loss"] == pytest.approx(first["natural_loss"], rel=1e-6)
    assert second["loss"] == pytest.approx(second["robust_loss"], rel=1e-6)
    assert second["robust_loss"] > 1.001 * second["natural_loss"]


def test_a_scheduled_learning_rate_is_used(tiny, tmp_path, monkeypatch):
    used, step = [], Stepper.step

    def noting(self, *args):
        used.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(Stepper, "step", noting)
    schedule = Schedule(path="optimizer.lr", start_value=0.01, end_value=0.04, ramp=LinearRamp(end=3.0))
    run = train(tiny(schedules=(schedule,)), out=tmp_path, quiet=True)
    expected = [0.01 + 0.03 * step / 18 for step in range(18)]
    assert used == pytest.approx(expected)
    assert [record["lr"] for record in jsonl.read(run.folder.metrics)] == pytest.approx(expected[5::6])
