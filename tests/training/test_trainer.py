"""The course of a run: its randomness, interruptions, validation and the final weights."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.training_runs import (
    LAST_BATCH,
    MEASURED,
    OF_BOXES,
    STEPS,
    Killed,
    Watched,
    cut_short,
    same,
    untimed,
    weights,
)

import ctbench
from ctbench.datasets import Augmentation, Data, Digits, Images, stratified_split
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.networks import CNN3, MLP
from ctbench.regions import Linf
from ctbench.results import RunFolder, jsonl
from ctbench.training import (
    SGD,
    SWA,
    Adam,
    SmoothRamp,
    TrainingDivergedError,
    load_run,
    train,
)
from ctbench.training.checkpoints import load_state
from ctbench.training.step import Stepper
from ctbench.training.trainer import Trainer
from ctbench.verify import Bound

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


# ---------------------------------------------------------------------------------------------- cut short


@pytest.fixture(
    scope="module",
    params=[{}, {"validation": 0.2, "method": PGD(), "shi": 0.0}, {"optimizer": SGD(lr=0.01, momentum=0.95)}],
    ids=["ibp", "validated", "sgd"],
)
def whole(request, tiny, tmp_path_factory) -> ctbench.Run:
    """A run that nothing interrupts."""
    recipe = tiny(**{"optimizer": Adam(lr=0.01, milestones=(2,))} | request.param)
    return train(recipe, out=tmp_path_factory.mktemp("whole") / "run", quiet=True)


@pytest.mark.parametrize("call", [1, 4, STEPS + 1, 2 * STEPS, 2 * STEPS + 3])
def test_an_interrupted_run_ends_in_the_weights_of_one_that_was_not(whole, tmp_path, monkeypatch, call):
    recipe = whole.recipe
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
from ctbench.training.step import Stepper
from ctbench.verify import Bound

step = Stepper.step

def hanging(self, x, y, settings, generator):
    if (settings.epoch, settings.number) == (1, 3):
        print("in the middle of an epoch", flush=True)
        time.sleep(600)
    return step(self, x, y, settings, generator)

Stepper.step = hanging
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


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("network", [MLP(hidden=(20,)), CNN3(width=2)], ids=["mlp", "cnn3"])
def test_validation_reports_on_images_that_are_held_out(tiny, tmp_path, network):
    recipe = tiny(network=network, validation=0.25, ramp=SmoothRamp(start=0.0, end=1.0), threat=Linf(eps=0.02), seed=3)
    run = train(recipe, out=tmp_path, quiet=True)
    metrics = jsonl.read(run.folder.metrics)
    assert all(
        record.keys() == MEASURED | OF_BOXES | {"seconds", "validation_natural_accuracy", "validation_robust_accuracy"}
        for record in metrics
    )
    _, held_out = stratified_split(recipe.dataset.load().train, fraction=0.25, seed=3)
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
    training, held_out = stratified_split(recipe.dataset.load().train, fraction=0.5, seed=0)
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


# ---------------------------------------------------------------------------------------------- SWA, selection


def watch_weights(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The parameters after every step, in a list that fills while a run goes on."""
    seen, step = [], Stepper.step

    def noting(self, *args):
        means = step(self, *args)
        seen.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return means

    monkeypatch.setattr(Stepper, "step", noting)
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
    _, held_out = stratified_split(recipe.dataset.load().train, fraction=0.2, seed=0)
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
    "ramp": SmoothRamp(end=3.0),
    "threat": Linf(eps=0.1),
    "shi": 0.0,
    "optimizer": Adam(lr=0.1),
    "seed": 1,
}


def test_the_best_epoch_at_the_full_radius_is_what_a_run_ends_in(tiny, tmp_path, monkeypatch):
    models, validate = [], Trainer.validate

    def noting(self, *args):
        models.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return validate(self, *args)

    monkeypatch.setattr(Trainer, "validate", noting)
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


ON_TEST = {key: value for key, value in CHOOSY.items() if key != "validation"} | {"select": "test"}


def test_the_best_epoch_on_test_images_counts_from_the_radius_of_the_test_on(tiny, tmp_path, monkeypatch):
    """CTBench's protocol: with twice the radius in training, epochs count before the radius has grown to its end."""
    models, validate = {}, Trainer.validate

    def noting(self, images, settings, name):
        assert len(images) == 359  # the whole test set
        models[settings.epoch] = {key: value.clone() for key, value in self.model.state_dict().items()}
        return validate(self, images, settings, name)

    monkeypatch.setattr(Trainer, "validate", noting)
    run = train(tiny(**ON_TEST, train_eps=0.2), out=tmp_path, quiet=True)
    metrics = jsonl.read(run.folder.metrics)
    counted = [number for number, record in enumerate(metrics) if record["eps"] >= 0.1]
    assert counted == sorted(models) == [1, 2, 3, 4, 5]
    robust = {number: metrics[number]["test_robust_accuracy"] for number in counted}
    best = max(counted, key=lambda number: robust[number])
    assert best < 5
    assert metrics[-1]["best_epoch"] == best + 1
    assert same(weights(run), models[best])
    assert "test_robust_accuracy" not in metrics[0]
    x, y = run.recipe.dataset.load().test[:]
    certified = ctbench.certify(run.model, x, y, eps=0.1, stages=(Bound(domain="interval"),)).certified_accuracy
    assert certified == pytest.approx(robust[best], abs=1.5 / len(y))


def test_the_first_of_equally_good_epochs_is_kept(tiny, tmp_path, monkeypatch):
    constant = {"validation_natural_accuracy": 0.5, "validation_robust_accuracy": 0.25}
    monkeypatch.setattr(Trainer, "validate", lambda *_: constant)
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


@pytest.mark.parametrize("changes", [CHOOSY, ON_TEST, {"swa": SWA(start=1.5, every=4)}], ids=["best", "test", "swa"])
def test_a_kill_after_the_last_state_leaves_the_same_weights(tiny, tmp_path, changes):
    recipe = tiny(**changes)
    run = train(recipe, out=tmp_path, quiet=True)
    run.folder.weights.unlink()
    assert same(weights(train(recipe, out=tmp_path, resume=True, quiet=True)), weights(run))
