"""A training run: what it computes, what it leaves behind, and what happens when it is cut short."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from benchmarks._counting import counted
from rich.console import Console
from torch import nn

import ctbench
from ctbench.datasets import Augmentation, Data, Digits, Images, split
from ctbench.graph.ops import Conv2d, ScaledConv2d
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, MLP
from ctbench.regions import Linf
from ctbench.results import RunFolder, jsonl
from ctbench.training import (
    SGD,
    SWA,
    Adam,
    Constant,
    Linear,
    Recipe,
    Schedule,
    Smooth,
    TrainingDivergedError,
    load_run,
    train,
)
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import load_state
from ctbench.training.loop import Training
from ctbench.training.objective import backward
from ctbench.training.progress import Display
from ctbench.training.recipe import Moment

STEPS = 6  # an epoch of 1,438 digits in batches of 256
LAST_BATCH = 1438 - 5 * 256
MEASURED = {"epoch", "eps", "lr", "loss", "natural_loss", "natural_accuracy", "robust_loss", "robust_accuracy"}
OF_BOXES = {"ibp_accuracy", "active_relus", "dead_relus", "unstable_relus"}


@dataclass(frozen=True, kw_only=True)
class Watched(Method):
    """The clean cross-entropy, with a note of every call; NaN from call `nan_at` on."""

    name: ClassVar[str] = "watched"
    calls: ClassVar[list[Batch]] = []
    nan_at: int = 10**9

    def __call__(self, net, batch: Batch) -> RobustLoss:
        self.calls.append(batch)
        loss = F.cross_entropy(batch.logits, batch.y, reduction="none")
        if len(self.calls) > self.nan_at:
            loss = loss * math.nan
        return RobustLoss(loss, correct=batch.logits.argmax(1) == batch.y)


@pytest.fixture(autouse=True)
def _no_calls_yet():
    Watched.calls.clear()


class Killed(BaseException):
    """Stands for what no code can catch."""


def weights(run: ctbench.Run) -> dict[str, torch.Tensor]:
    return run.model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def untimed(path) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in jsonl.read(path)]


def interrupt_at(monkeypatch, call: int) -> None:
    """Stop the process, as it were, in the step that is counted so."""
    step, made = Training.step, []

    def stopping(self, *args, **kwargs):
        made.append(None)
        if len(made) == call:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Training, "step", stopping)


def cut_short(monkeypatch, recipe: Recipe, call: int, out, *, resume: bool = False) -> None:
    """Train, and die in the step that is counted so."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, call)
        with pytest.raises(Killed):
            train(recipe, out=out, resume=resume, quiet=True)


def single(recipe: Recipe, tmp_path) -> tuple[Training, torch.Tensor, torch.Tensor]:
    """A run that has not begun, and a first batch."""
    data = recipe.dataset.load()
    model = Blueprint.of(recipe.network, data).build(initialization=recipe.initialization, seed=recipe.seed)
    training = Training(recipe, RunFolder(tmp_path), model, data, torch.device("cpu"))
    return training, *data.train[:64]


def one_step(training: Training, x, y, eps: float, epoch: int = 0) -> dict[str, float]:
    now = Moment(training.recipe, epoch, 0, eps)
    return {name: value.item() for name, value in training.step(x, y, now, torch.Generator().manual_seed(0)).items()}


# ---------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize(
    "changes",
    [{}, {"method": PGD(), "shi": 0.0}, {"dataset": Digits(augmentation=Augmentation(flip=True, crop_padding=1))}],
    ids=["ibp", "pgd", "augmented"],
)
def test_a_run_is_a_function_of_its_recipe(tiny, tmp_path, changes):
    recipe = tiny(epochs=2, **changes)
    first = train(recipe, out=tmp_path / "first", quiet=True)
    torch.rand(5)
    again = train(recipe, out=tmp_path / "again", quiet=True)
    assert same(weights(first), weights(again))
    assert untimed(first.folder.metrics) == untimed(again.folder.metrics)


def test_another_seed_gives_other_weights(tiny, tmp_path):
    first = train(tiny(epochs=1), out=tmp_path / "first", quiet=True)
    other = train(tiny(epochs=1, seed=1), out=tmp_path / "other", quiet=True)
    for name in ("0.weight", "0.bias", "3.weight", "7.weight", "7.bias"):
        assert not torch.equal(weights(first)[name], weights(other)[name])


def test_another_seed_takes_the_images_in_another_order(tiny, tmp_path):
    for seed in (0, 1):
        train(tiny(method=Watched(), shi=0.0, epochs=2, seed=seed), out=tmp_path / str(seed), quiet=True)
    batches = [call.x for call in Watched.calls]
    assert [len(x) for x in batches] == 4 * [256, 256, 256, 256, 256, LAST_BATCH]
    firsts = batches[::STEPS]
    assert not any(torch.equal(a, b) for n, a in enumerate(firsts) for b in firsts[:n])


def test_an_epoch_sees_every_image_once(tiny, tmp_path):
    recipe = tiny(method=Watched(), shi=0.0, epochs=1)
    train(recipe, out=tmp_path, quiet=True)
    seen = torch.cat([call.x for call in Watched.calls]).flatten(1)
    everything = recipe.dataset.load().train[:][0].flatten(1)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, everything.tolist()))


def test_the_global_random_state_plays_no_part_and_is_left_alone(tiny, tmp_path):
    before = torch.get_rng_state()
    train(tiny(epochs=1, validation=0.1), out=tmp_path, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------------- run folder


def test_a_run_folder_holds_all_there_is_to_know(tiny, tmp_path):
    recipe = tiny()
    run = train(recipe, out=tmp_path / "run", quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "metrics.jsonl",
        "recipe.json",
        "state.safetensors",
        "versions.json",
        "weights.safetensors",
    ]
    assert Recipe.from_json(json.loads(run.folder.recipe.read_text())) == recipe
    versions = json.loads(run.folder.versions.read_text())
    made_with = {"ctbench", "commit", "torch", "python", "device", "threads"}
    assert versions.keys() == made_with | {"processes", "precision", "compiled"}
    assert (versions["torch"], versions["threads"]) == (torch.__version__, torch.get_num_threads())
    metrics = jsonl.read(run.folder.metrics)
    assert [record["epoch"] for record in metrics] == [1, 2, 3]
    assert all(record.keys() == MEASURED | OF_BOXES | {"seconds"} for record in metrics)
    assert all(0 < record["seconds"] < 60 for record in metrics)
    assert metrics[-1]["natural_loss"] < metrics[0]["natural_loss"]
    assert not run.model.training


def test_a_complete_run_is_loaded_as_it_was(tiny, tmp_path):
    run = train(tiny(), out=tmp_path, quiet=True)
    loaded = load_run(tmp_path)
    assert loaded.recipe == run.recipe
    assert same(weights(loaded), weights(run))
    assert not loaded.model.training
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.model(x), run.model(x))


def test_a_complete_run_is_not_trained_again(tiny, tmp_path, monkeypatch):
    run = train(tiny(), out=tmp_path, quiet=True)
    interrupt_at(monkeypatch, 1)
    assert same(weights(train(tiny(), out=tmp_path, resume=True, quiet=True)), weights(run))


def test_the_default_folder_is_named_by_the_recipe(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny(epochs=1)
    run = train(recipe, quiet=True)
    assert (tmp_path / "runs" / f"tiny-{recipe.hash}" / "weights.safetensors").exists()
    assert run.folder.path.name == f"tiny-{recipe.hash}"


def test_quiet_shows_nothing_and_otherwise_standard_error_tells_epochs(tiny, tmp_path, capfd):
    train(tiny(), out=tmp_path / "quiet", quiet=True)
    assert capfd.readouterr() == ("", "")
    train(tiny(), out=tmp_path / "told")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert [line.split("  ")[0] for line in shown.err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "robust accuracy" in shown.err


# --------------------------------------------------------------------------------------- claimed by another


def test_the_name_of_a_recipe_is_refused():
    with pytest.raises(ValueError, match=r"the recipe is 'digits_ibp': give a Recipe, as ctbench\.recipe\(name\)"):
        train("digits_ibp")


def test_a_folder_of_another_recipe_is_refused(tiny, tmp_path):
    train(tiny(epochs=1), out=tmp_path, quiet=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"holds the run of another recipe \(tiny, .*: choose another folder"):
            train(tiny(epochs=2), out=tmp_path, resume=resume, quiet=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_is_there_is_not_overwritten(tiny, tmp_path):
    train(tiny(epochs=1), out=tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"holds this run already: resume it \(--resume\), or choose another folder"):
        train(tiny(epochs=1), out=tmp_path, quiet=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_with_other_files_is_refused(tiny, tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="holds other files: choose an empty or a new folder"):
        train(tiny(epochs=1), out=tmp_path, resume=resume, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_this_recipe_under_another_name_is_the_same_run(tiny, tmp_path):
    run = train(tiny(epochs=1), out=tmp_path, quiet=True)
    again = train(tiny(epochs=1, name="other", source="elsewhere"), out=tmp_path, resume=True, quiet=True)
    assert same(weights(run), weights(again))


def test_resume_begins_where_there_is_nothing_yet(tiny, tmp_path):
    run = train(tiny(epochs=1), out=tmp_path / "new", resume=True, quiet=True)
    assert len(jsonl.read(run.folder.metrics)) == 1


def test_a_recipe_with_whole_numbers_can_be_resumed(tiny, tmp_path):
    recipe = tiny(ramp=Smooth(start=0, end=2))
    run = train(recipe, out=tmp_path, quiet=True)
    assert same(weights(train(recipe, out=tmp_path, resume=True, quiet=True)), weights(run))


def test_an_incomplete_run_is_not_loaded(tiny, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, STEPS + 2)
    with pytest.raises(Killed):
        train(tiny(), out=tmp_path, quiet=True)
    with pytest.raises(FileNotFoundError, match="is not complete: train it on with resume"):
        load_run(tmp_path)


def test_a_folder_that_is_no_run_is_not_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no recipe\.json"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        load_run(tmp_path / "nowhere")


# ---------------------------------------------------------------------------------------------- cut short


@pytest.mark.parametrize("call", [1, 4, STEPS + 1, 2 * STEPS, 2 * STEPS + 3])
@pytest.mark.parametrize(
    "changes",
    [{}, {"validation": 0.2, "method": PGD(), "shi": 0.0}, {"optimizer": SGD(lr=0.01, momentum=0.95)}],
    ids=["ibp", "validated", "sgd"],
)
def test_an_interrupted_run_ends_in_the_weights_of_one_that_was_not(tiny, tmp_path, monkeypatch, call, changes):
    recipe = tiny(**{"optimizer": Adam(lr=0.01, milestones=(2,))} | changes)
    whole = train(recipe, out=tmp_path / "whole", quiet=True)
    cut_short(monkeypatch, recipe, call, tmp_path / "cut")
    folder = RunFolder(tmp_path / "cut")
    assert not folder.weights.exists()
    resumed = train(recipe, out=tmp_path / "cut", resume=True, quiet=True)
    assert same(weights(resumed), weights(whole))
    assert untimed(folder.metrics) == untimed(whole.folder.metrics)
    assert same(weights(load_run(tmp_path / "cut")), weights(whole))


def test_an_interrupted_run_may_be_interrupted_again(tiny, tmp_path, monkeypatch):
    whole = train(tiny(), out=tmp_path / "whole", quiet=True)
    for resume in (False, True):
        cut_short(monkeypatch, tiny(), STEPS + 2, tmp_path / "cut", resume=resume)
    assert load_state(tmp_path / "cut" / "state.safetensors").epochs_done == 2
    assert same(weights(train(tiny(), out=tmp_path / "cut", resume=True, quiet=True)), weights(whole))
    assert [record["epoch"] for record in jsonl.read(tmp_path / "cut" / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("function", ["append", "write_whole"], ids=["before the record", "before the state"])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_a_kill_between_state_and_record_neither_loses_nor_doubles_an_epoch(
    tiny, tmp_path, monkeypatch, function, after
):
    """However the two follow one another, a kill around either leaves a run with one record an epoch."""
    whole = train(tiny(), out=tmp_path / "whole", quiet=True)
    module = jsonl if function == "append" else sys.modules["ctbench.training.checkpoints"]
    original, made = getattr(module, function), []

    def killing(*args, **kwargs):
        made.append(None)
        if len(made) == 2 and not after:
            raise Killed
        original(*args, **kwargs)
        if len(made) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, function, killing)
        with pytest.raises(Killed):
            train(tiny(), out=tmp_path / "cut", quiet=True)
    resumed = train(tiny(), out=tmp_path / "cut", resume=True, quiet=True)
    assert same(weights(resumed), weights(whole))
    assert untimed(resumed.folder.metrics) == untimed(whole.folder.metrics)


def test_a_torn_last_record_is_written_anew(tiny, tmp_path, monkeypatch):
    cut_short(monkeypatch, tiny(), STEPS + 2, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "eps"')
    train(tiny(), out=tmp_path, resume=True, quiet=True)
    assert [record["epoch"] for record in jsonl.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_a_damaged_state_is_named(tiny, tmp_path, monkeypatch):
    cut_short(monkeypatch, tiny(), STEPS + 2, tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state.safetensors is damaged or not a safetensors file"):
        train(tiny(), out=tmp_path, resume=True, quiet=True)


VICTIM = """
import json, sys, time
import torch
torch.set_num_threads(1)
from ctbench.training import Recipe, train
from ctbench.training.loop import Training
from ctbench.training.recipe import Moment

step = Training.step

def hanging(self, x, y, now, generator):
    if (now.epoch, now.number) == (1, 3):
        print("in the middle of an epoch", flush=True)
        time.sleep(600)
    return step(self, x, y, now, generator)

Training.step = hanging
train(Recipe.from_json(json.loads(sys.argv[1])), out=sys.argv[2], quiet=True)
"""


@pytest.mark.timeout(120)
def test_a_run_killed_in_the_middle_of_an_epoch_ends_in_the_same_weights(tiny, tmp_path):
    recipe = tiny()
    whole = train(recipe, out=tmp_path / "whole", quiet=True)
    command = [sys.executable, "-c", VICTIM, json.dumps(recipe.to_json()), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "in the middle of an epoch\n"
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
    folder = RunFolder(tmp_path / "killed")
    assert [record["epoch"] for record in jsonl.read(folder.metrics)] == [1]
    assert not folder.weights.exists()
    resumed = train(recipe, out=folder.path, resume=True, quiet=True)
    assert same(weights(resumed), weights(whole))
    assert folder.weights.read_bytes() == whole.folder.weights.read_bytes()
    assert untimed(folder.metrics) == untimed(whole.folder.metrics)


# ---------------------------------------------------------------------------------------------- divergence


def test_a_nan_stops_the_run_and_keeps_the_last_good_state(tiny, tmp_path):
    recipe = tiny(method=Watched(nan_at=STEPS + 2), shi=0.0)
    with pytest.raises(TrainingDivergedError) as error:
        train(recipe, out=tmp_path, quiet=True)
    message = str(error.value)
    assert "tiny diverged in epoch 2, step 3 of 6: the loss is nan" in message
    assert "Likely causes: a learning rate (0.01) too high, eps (now 0.0" in message
    assert f"the state after epoch 1 is in {tmp_path / 'state.safetensors'}" in message
    assert not (tmp_path / "weights.safetensors").exists()
    state = load_state(tmp_path / "state.safetensors")
    assert state.epochs_done == 1
    assert all(torch.isfinite(value).all() for value in (*state.model.values(), *state.optimizer.values()))
    assert [record["epoch"] for record in jsonl.read(tmp_path / "metrics.jsonl")] == [1]


def test_a_nan_in_the_first_epoch_leaves_no_state(tiny, tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"epoch 1, step 1 of 6: .*no epoch was completed"):
        train(tiny(method=Watched(nan_at=0), shi=0.0), out=tmp_path, quiet=True)
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_gradient_stops_the_run_before_it_reaches_a_weight(tiny, tmp_path, value):
    training, x, y = single(tiny(method=Standard(), shi=0.0), tmp_path)
    before = [p.detach().clone() for p in training.parameters]
    hook = training.parameters[0].register_hook(lambda gradient: torch.full_like(gradient, value))
    one_step(training, x, y, 0.0)
    hook.remove()
    one_step(training, x, y, 0.0)  # nor does a later step move them
    assert all(torch.equal(p, old) for p, old in zip(training.parameters, before, strict=True))
    with pytest.raises(TrainingDivergedError, match=f"epoch 1, step 1 of {training.steps}: .* gradient's norm {value}"):
        training._check_steps(0)


@dataclass(frozen=True, kw_only=True)
class Overflowing(SGD):
    """An optimiser whose steps cannot be called off on the device, and go too far."""

    name: ClassVar[str] = "overflowing"

    def of(self, parameters):
        class Far(torch.optim.SGD):
            @torch.no_grad()
            def step(self):
                self.param_groups[0]["params"][-1][0] = math.inf

        return Far(parameters, lr=self.lr)


def test_weights_that_the_last_step_has_broken_are_not_written(tiny, tmp_path):
    """The loss and its gradient are finite; what the step makes of them is not, and no later loss tells."""
    recipe = tiny(method=Standard(), shi=0.0, optimizer=Overflowing(), batch_size=1438, precise_bn=False)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1: after its last step .* holds NaN or infinite values"):
        train(recipe, out=tmp_path, quiet=True)
    assert not (tmp_path / "state.safetensors").exists()
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_epoch_is_that_of_a_loop_that_looks_at_every_step(tiny, tmp_path):
    """The same loss and the same weights, bit by bit, as where each loss is read before the optimiser's step."""
    recipe = tiny(method=PGD(), epochs=1, shi=0.0, precise_bn=False)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    training, *_ = single(recipe, tmp_path / "other")
    generator, total, seen = training._generator(0, stream=0), 0.0, 0
    for number, (x, y) in enumerate(training._batches(generator)):
        now = recipe.at(0, number, training.steps)
        net, batch = training._clean_pass(training.graph, x, y, now, generator)
        training.optimizer.zero_grad(set_to_none=True)
        loss = backward(training.model, net, batch, now)["loss"]
        nn.utils.clip_grad_norm_(training.parameters, recipe.optimizer.clip_norm)
        assert math.isfinite(loss.item())
        for group in training.optimizer.param_groups:
            group["lr"] = now.lr
        training.optimizer.step()
        total, seen = total + len(x) * loss.double().item(), seen + len(x)
    assert same(weights(run), training.model.state_dict())
    (record,) = jsonl.read(run.folder.metrics)
    assert record["loss"] == pytest.approx(total / seen, rel=1e-14)


def test_an_epoch_waits_as_often_as_a_shorter_one(tiny, tmp_path):
    """Metrics, and whether a step was not finite, are read once, however many steps there are."""
    waits = []
    for size in (100, 400):
        training, *_ = single(tiny(batch_size=size), tmp_path)
        shown = Display(Console(quiet=True), 1, 1, None, None)
        waits.append(counted(lambda training=training, shown=shown: training.epoch(0, shown)).waits)
        assert training.steps in (15, 4)
    assert waits[0] == waits[1]
    assert waits[0] > 0


# ---------------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize(("network", "steps"), [(CNN3(width=2), 1), (MLP(hidden=(7,)), 3)], ids=["cnn3", "mlp"])
def test_a_standard_step_is_the_plain_step_of_torch(tiny, tmp_path, network, steps):
    training, x, y = single(tiny(network=network, method=Standard(), shi=0.0), tmp_path)
    plain = copy.deepcopy(training.model).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(steps):
        measured = one_step(training, x, y, 0.05)
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
    # the gradient of a bias before a batch norm is 0 but for rounding, which Adam's first step blows up
    noise = {"0.bias", "3.bias"} if network.name == "cnn3" else set()
    gradients = dict(training.model.named_parameters())
    assert all(gradients[name].grad.abs().max() < 1e-6 for name in noise)
    for name, value in plain.state_dict().items():
        if name not in noise:
            torch.testing.assert_close(training.model.state_dict()[name], value, rtol=0, atol=1e-6)


def gradient(model: nn.Module, weights: dict[str, torch.Tensor], x, y) -> dict[str, torch.Tensor]:
    """That of the natural loss of a network with these weights."""

    def loss(weights):
        return F.cross_entropy(torch.func.functional_call(model, weights, x), y)

    return torch.func.grad(loss)(weights)


def test_steps_of_sgd_are_those_of_torch(tiny, tmp_path):
    sgd = SGD(lr=0.1, momentum=0.95, weight_decay=0.01, clip_norm=1e9)
    training, x, y = single(tiny(network=MLP(hidden=(7,)), method=Standard(), shi=0.0, optimizer=sgd), tmp_path)
    weights = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    speed = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(3):
        gradients = gradient(training.model, weights, x, y)
        speed = {name: 0.95 * speed[name] + gradients[name] + 0.01 * weights[name] for name in weights}
        weights = {name: weights[name] - 0.1 * speed[name] for name in weights}
        one_step(training, x, y, 0.05)
    for name, value in training.model.named_parameters():
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
    training, x, y = single(recipe, tmp_path)
    other = copy.deepcopy(training.model)
    natural, robust, l1_sum = by_hand(other, x, y, 0.03)
    loss = (1 - weight) * natural + weight * robust + l1 * l1_sum
    gradients = torch.autograd.grad(loss, list(other.parameters()))
    measured = one_step(training, x, y, 0.03)
    assert measured["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert measured["natural_loss"] == pytest.approx(natural.item(), rel=1e-5)
    assert measured["robust_loss"] == pytest.approx(robust.item(), rel=1e-5)
    for parameter, expected in zip(training.parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_by_their_total_norm(tiny, tmp_path):
    gradients = {}
    for clip_norm in (1e-3, 1e9):
        training, x, y = single(tiny(optimizer=Adam(clip_norm=clip_norm), shi=0.0), tmp_path)
        one_step(training, x, y, 0.05)
        gradients[clip_norm] = torch.cat([p.grad.flatten() for p in training.parameters])
    free, clipped = gradients[1e9], gradients[1e-3]
    assert free.norm() > 0.1
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-3, atol=1e-5)


def test_short_gradients_are_not_clipped(tiny, tmp_path):
    gradients = []
    for clip_norm in (1e3, 1e9):
        training, x, y = single(tiny(optimizer=Adam(clip_norm=clip_norm), shi=0.0), tmp_path)
        one_step(training, x, y, 0.05)
        gradients.append([p.grad for p in training.parameters])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_regulariser_of_shi_is_in_force_while_the_radius_grows(tiny, tmp_path):
    run = train(tiny(ramp=Linear(start=0.0, end=2.0)), out=tmp_path, quiet=True)
    extra = [record["loss"] - record["robust_loss"] for record in jsonl.read(run.folder.metrics)]
    assert extra[0] > 1e-3
    assert extra[1] > 1e-4
    assert abs(extra[2]) < 1e-9


def test_the_regulariser_fades_with_the_radius(tiny, tmp_path):
    extra = []
    for eps in (0.01, 0.04, 0.05):
        training, x, y = single(tiny(shi=0.5, robust_weight=1.0), tmp_path)
        measured = one_step(training, x, y, eps)
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
        training, x, y = single(tiny(shi=0.5), tmp_path)
        measured = one_step(training, x, y, eps)
        losses.append(measured["loss"] - measured["robust_loss"])
    assert losses[0] > 0.01
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_regulariser_needs_boxes(tiny, tmp_path):
    message = "shi is 0.5 but the method 'standard' computes no interval bounds: set shi=0"
    with pytest.raises(ValueError, match=message):
        train(tiny(method=Standard()), out=tmp_path, quiet=True)


# ---------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("train_eps", [None, 0.08])
def test_every_step_has_the_radius_of_the_ramp(tiny, tmp_path, train_eps):
    recipe = tiny(
        method=Watched(), shi=0.0, ramp=Smooth(start=0.5, end=2.0), threat=Linf(eps=0.05), train_eps=train_eps
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
    used, step = [], Training.step

    def noting(self, *args, **kwargs):
        used.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Training, "step", noting)
    recipe = tiny(epochs=4, optimizer=Adam(lr=0.01, milestones=(1, 3), decay=0.1))
    run = train(recipe, out=tmp_path, quiet=True)
    expected = [0.01, 0.001, 0.001, 0.0001]
    assert [record["lr"] for record in jsonl.read(run.folder.metrics)] == pytest.approx(expected, rel=1e-12)
    assert used == pytest.approx([lr for lr in expected for _ in range(STEPS)], rel=1e-12)


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("network", [MLP(hidden=(20,)), CNN3(width=2)], ids=["mlp", "cnn3"])
def test_validation_reports_on_images_that_are_held_out(tiny, tmp_path, network):
    recipe = tiny(network=network, validation=0.25, ramp=Smooth(start=0.0, end=1.0), threat=Linf(eps=0.02), seed=3)
    run = train(recipe, out=tmp_path, quiet=True)
    metrics = jsonl.read(run.folder.metrics)
    assert all(
        record.keys() == MEASURED | OF_BOXES | {"seconds", "validation_natural_accuracy", "validation_robust_accuracy"}
        for record in metrics
    )
    _, held_out = split(recipe.dataset.load().train, fraction=0.25, seed=3)
    x, y = held_out[:]
    margins = ctbench.margin_bounds(run.model, x, y, eps=0.02, domain="interval")
    others = F.one_hot(y, 10) == 0
    robust = ((margins > 0) | ~others).all(1).double().mean().item()
    natural = (run.model(x).argmax(1) == y).double().mean().item()
    assert 0 < robust < natural
    assert metrics[-1]["validation_natural_accuracy"] == pytest.approx(natural, abs=2 / len(y))
    assert metrics[-1]["validation_robust_accuracy"] == pytest.approx(robust, abs=2 / len(y))


def test_held_out_images_are_not_trained_on(tiny, tmp_path):
    recipe = tiny(method=Watched(), shi=0.0, validation=0.5, epochs=1)
    train(recipe, out=tmp_path, quiet=True)
    training, held_out = split(recipe.dataset.load().train, fraction=0.5, seed=0)
    seen = [tuple(x) for call in Watched.calls[: math.ceil(len(training) / 256)] for x in call.x.flatten(1).tolist()]
    assert sorted(seen) == sorted(map(tuple, training[:][0].flatten(1).tolist()))
    later = [tuple(x) for call in Watched.calls[math.ceil(len(training) / 256) :] for x in call.x.flatten(1).tolist()]
    assert later == list(map(tuple, held_out[:][0].flatten(1).tolist()))


def test_validation_does_not_change_the_run_of_batch_norms(tiny, tmp_path):
    """The statistics for a validation are computed in every epoch; the weights follow from the batches alone."""
    recipe = tiny(validation=0.25)
    plain = train(replace(recipe, precise_bn=False), out=tmp_path / "plain", quiet=True)
    precise = train(recipe, out=tmp_path / "precise", quiet=True)
    names = [name for name, _ in plain.model.named_parameters()]
    assert all(torch.equal(weights(plain)[name], weights(precise)[name]) for name in names)


def test_the_last_epoch_ends_with_precise_statistics(tiny, tmp_path):
    recipe = tiny(network=CNN3(width=2))
    run = train(recipe, out=tmp_path / "precise", quiet=True)
    follow = train(replace(recipe, precise_bn=False), out=tmp_path / "follow", quiet=True)
    x, _ = recipe.dataset.load().train[:]
    z = run.model[0](x)  # the first batch norm's input
    # the average over batches that partition the training set, up to the weight of the smaller last batch
    torch.testing.assert_close(run.model[1].running_mean, z.mean((0, 2, 3)), rtol=0.03, atol=0.03)
    distance = [(m.model[1].running_mean - z.mean((0, 2, 3))).abs().max().item() for m in (run, follow)]
    assert distance[0] < distance[1] / 3
    assert torch.equal(run.model[0].weight, follow.model[0].weight)


def test_ibp_trains_what_can_be_certified(tiny, tmp_path):
    recipe = tiny(network=MLP(hidden=(40,)), epochs=6, batch_size=64, threat=Linf(eps=0.03))
    run = train(recipe, out=tmp_path, quiet=True)
    x, y = recipe.dataset.load().test[:]
    found = ctbench.certify(run.model, x, y, eps=0.03)
    assert found.certified_accuracy > 0.6
    assert IBP() == run.recipe.method


def test_training_images_are_augmented(tiny, tmp_path):
    plain = tiny(method=Watched(), shi=0.0, epochs=1)
    seen = {}
    for name, augmentation in (("plain", Augmentation()), ("flipped", Augmentation(flip=True))):
        Watched.calls.clear()
        train(replace(plain, dataset=Digits(augmentation=augmentation)), out=tmp_path / name, quiet=True)
        seen[name] = torch.cat([batch.x for batch in Watched.calls])
    columns = torch.arange(8.0)
    mirrored = {name: ((x * columns).sum((1, 2, 3)) / x.sum((1, 2, 3))).mean() for name, x in seen.items()}
    assert abs(mirrored["flipped"] - 3.5) < 0.02 < abs(mirrored["plain"] - 3.5)  # the mean column of all ink


def test_validation_is_at_the_radius_of_the_test_where_training_goes_beyond(tiny, tmp_path):
    Watched.calls.clear()
    train(tiny(method=Watched(), shi=0.0, epochs=2, train_eps=0.2, validation=0.1), out=tmp_path, quiet=True)
    radii = [float(batch.region.hull.radius.max()) for batch in Watched.calls]
    assert max(radii) > 0.09  # of training: the box is clipped at 0 and 1
    assert radii[-1] == pytest.approx(0.05, abs=1e-6)  # the last batch is of the validation


def test_a_run_does_not_go_on_with_other_images(tiny, tmp_path, monkeypatch):
    recipe = tiny(method=Watched(nan_at=8), shi=0.0)
    with pytest.raises(TrainingDivergedError):
        train(recipe, out=tmp_path, quiet=True)
    load = Digits.load

    def altered(self: Digits, root: Path | None = None) -> Data:
        data = load(self, root)
        return replace(data, train=Images(data.train.inputs.flip(0), data.train.labels))

    monkeypatch.setattr(Digits, "load", altered)
    with pytest.raises(ValueError, match="was trained by another recipe or on other images"):
        train(recipe, out=tmp_path, resume=True, quiet=True)


def test_a_recipe_that_no_run_has_written_is_not_overwritten(tiny, tmp_path):
    jsonl.write_json(RunFolder(tmp_path).recipe, tiny(seed=5).to_json())
    with pytest.raises(ValueError, match="holds the run of another recipe"):
        train(tiny(), out=tmp_path, quiet=True)
    assert Recipe.from_json(jsonl.read_json(RunFolder(tmp_path).recipe)).seed == 5


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
    recipe = tiny(method=Watched(), warmup=IBP(), ramp=Smooth(start=0.0, end=1.5), epochs=3, validation=0.1)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    steps = math.ceil(len(split(recipe.dataset.load().train, fraction=0.1, seed=0)[0]) / 256)
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
    training, x, y = single(recipe, tmp_path)
    plain = copy.deepcopy(training.model).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(2):
        one_step(training, x, y, 0.05)
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
    noise = {"0.bias", "3.bias"}  # their gradient is 0 but for rounding, which Adam's first step blows up
    for name, value in plain.state_dict().items():
        if name not in noise and "running_mean" not in name:  # that of a layer's input moves with its bias
            torch.testing.assert_close(training.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_the_prelude_of_a_method_that_is_not_in_force_is_not_made(tiny, tmp_path):
    Shifted.seen.clear()
    train(tiny(method=Shifted(), warmup=IBP(), ramp=Smooth(end=1.0), epochs=2), out=tmp_path, quiet=True)
    assert [kind for kind, _ in Shifted.seen] == ["prelude", "loss"] * STEPS


# ---------------------------------------------------------------------------------------------- parts, schedules


@pytest.mark.parametrize("changes", [{}, {"network": MLP(hidden=(7,))}], ids=["batch norm", "plain"])
def test_accumulated_steps_train_the_same_network(tiny, tmp_path, changes):
    changes |= {"shi": 0.0, "epochs": 1, "optimizer": Adam(lr=1e-3)}
    whole = train(tiny(**changes), out=tmp_path / "whole", quiet=True)
    parts = train(tiny(accumulate=3, **changes), out=tmp_path / "parts", quiet=True)
    for record, other in zip(untimed(whole.folder.metrics), untimed(parts.folder.metrics), strict=True):
        assert record == pytest.approx(other, rel=1e-5)
    assert not same(weights(whole), weights(parts))  # but for rounding


def test_a_scheduled_weight_is_in_force_in_every_step(tiny, tmp_path):
    schedule = Schedule(path="robust_weight", start_value=0.0, end_value=1.0, ramp=Constant(end=1.0))
    run = train(tiny(shi=0.0, schedules=(schedule,)), out=tmp_path, quiet=True)
    first, second, _ = jsonl.read(run.folder.metrics)
    assert first["loss"] == pytest.approx(first["natural_loss"], rel=1e-6)
    assert second["loss"] == pytest.approx(second["robust_loss"], rel=1e-6)
    assert second["robust_loss"] > 1.001 * second["natural_loss"]


def test_a_scheduled_learning_rate_is_used(tiny, tmp_path, monkeypatch):
    used, step = [], Training.step

    def noting(self, *args):
        used.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(Training, "step", noting)
    schedule = Schedule(path="optimizer.lr", start_value=0.01, end_value=0.04, ramp=Linear(end=3.0))
    run = train(tiny(schedules=(schedule,)), out=tmp_path, quiet=True)
    expected = [0.01 + 0.03 * step / 18 for step in range(18)]
    assert used == pytest.approx(expected)
    assert [record["lr"] for record in jsonl.read(run.folder.metrics)] == pytest.approx(expected[5::6])


# ---------------------------------------------------------------------------------------------- SWA, selection


def watch_weights(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The parameters after every step, in a list that fills while a run goes on."""
    seen, step = [], Training.step

    def noting(self, *args):
        means = step(self, *args)
        seen.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return means

    monkeypatch.setattr(Training, "step", noting)
    return seen


@pytest.mark.parametrize("precise_bn", [True, False])
def test_the_average_of_the_weights_is_what_a_run_with_swa_ends_in(tiny, tmp_path, monkeypatch, precise_bn):
    seen = watch_weights(monkeypatch)
    run = train(tiny(swa=SWA(start=1.5, every=4), precise_bn=precise_bn), out=tmp_path, quiet=True)
    chosen = [seen[step - 1] for step in (13, 17)]  # counted once they are done; 1.5 epochs are 9 steps
    assert len(seen) == 3 * STEPS
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), torch.stack([weights[name] for weights in chosen]).mean(0))
    x, _ = run.recipe.dataset.load().train[:]
    torch.testing.assert_close(run.model[1].running_mean, run.model[0](x).mean((0, 2, 3)), rtol=0.03, atol=0.03)
    assert same(weights(load_run(tmp_path)), weights(run))


def test_swa_leaves_the_course_of_training_as_it_was(tiny, tmp_path, monkeypatch):
    seen = watch_weights(monkeypatch)
    train(tiny(), out=tmp_path / "plain", quiet=True)
    train(tiny(swa=SWA(start=0, every=1)), out=tmp_path / "swa", quiet=True)
    assert all(same(a, b) for a, b in zip(seen[: 3 * STEPS], seen[3 * STEPS :], strict=True))


def test_the_last_validation_is_of_the_average(tiny, tmp_path):
    recipe = tiny(swa=SWA(start=1, every=2), validation=0.2)
    run = train(recipe, out=tmp_path, quiet=True)
    _, held_out = split(recipe.dataset.load().train, fraction=0.2, seed=0)
    x, y = held_out[:]
    natural = (run.model(x).argmax(1) == y).double().mean().item()
    assert jsonl.read(run.folder.metrics)[-1]["validation_natural_accuracy"] == pytest.approx(natural, abs=2 / len(y))


def test_an_average_of_nothing_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"swa would average no weights: from epoch 2 of 3 on .* fewer than 7 steps"):
        train(tiny(swa=SWA(start=2, every=7)), out=tmp_path, quiet=True)


CHOOSY = {
    "validation": 0.2,
    "select": "best",
    "epochs": 6,
    "ramp": Smooth(end=3.0),
    "threat": Linf(eps=0.1),
    "shi": 0.0,
    "optimizer": Adam(lr=0.1),
    "seed": 1,
}


def test_the_best_epoch_at_the_full_radius_is_what_a_run_ends_in(tiny, tmp_path, monkeypatch):
    models, validate = [], Training.validate

    def noting(self, *args):
        models.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return validate(self, *args)

    monkeypatch.setattr(Training, "validate", noting)
    run = train(tiny(**CHOOSY), out=tmp_path, quiet=True)
    metrics = jsonl.read(run.folder.metrics)
    robust = [record["validation_robust_accuracy"] for record in metrics]
    best = max(range(3, 6), key=lambda epoch: robust[epoch])  # the radius is full from the fourth epoch on
    assert max(robust[:3]) > robust[best]  # a smaller radius is easier, and does not count
    assert best == 4
    assert same(weights(run), models[best])
    assert not same(models[best], models[-1])
    assert [record.get("best_epoch") for record in metrics] == [None, None, None, 4, 5, 5]
    assert same(weights(load_run(tmp_path)), weights(run))


def test_the_first_of_equally_good_epochs_is_kept(tiny, tmp_path, monkeypatch):
    constant = {"validation_natural_accuracy": 0.5, "validation_robust_accuracy": 0.25}
    monkeypatch.setattr(Training, "validate", lambda *_: constant)
    run = train(tiny(**CHOOSY), out=tmp_path, quiet=True)
    assert [record.get("best_epoch") for record in jsonl.read(run.folder.metrics)] == [None, None, None, 4, 4, 4]


@pytest.mark.parametrize("call", [1, 2 * STEPS + 2, 4 * STEPS + 1, 5 * STEPS])
@pytest.mark.parametrize("changes", [CHOOSY, {"swa": SWA(start=1.5, every=4), "epochs": 6}], ids=["best", "swa"])
def test_averages_and_choices_survive_an_interruption(tiny, tmp_path, monkeypatch, call, changes):
    recipe = tiny(**changes)
    whole = train(recipe, out=tmp_path / "whole", quiet=True)
    cut_short(monkeypatch, recipe, call, tmp_path / "cut")
    resumed = train(recipe, out=tmp_path / "cut", resume=True, quiet=True)
    assert same(weights(resumed), weights(whole))
    assert untimed(resumed.folder.metrics) == untimed(whole.folder.metrics)


@pytest.mark.parametrize("changes", [CHOOSY, {"swa": SWA(start=1.5, every=4)}], ids=["best", "swa"])
def test_a_kill_after_the_last_state_leaves_the_same_weights(tiny, tmp_path, changes):
    recipe = tiny(**changes)
    run = train(recipe, out=tmp_path, quiet=True)
    run.folder.weights.unlink()
    assert same(weights(train(recipe, out=tmp_path, resume=True, quiet=True)), weights(run))


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
