"""Two processes on a CPU, joined as torchrun joins them, train what one trains."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ctbench import attacks
from ctbench.cli import main
from ctbench.datasets import Augmentation, Digits
from ctbench.methods.edac import EDAC
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, MLP
from ctbench.results import RunFolder, jsonl
from ctbench.training import SWA, Recipe, train
from ctbench.training.processes import ALONE, Processes, joined
from ctbench.training.step import Stepper
from ctbench.training.trainer import Trainer

TOGETHER = """
import json, os, sys
from pathlib import Path

import torch
from ctbench.training import Recipe, train
from ctbench.training.trainer import Trainer
from ctbench.training.processes import joined

torch.set_num_threads(1)
epoch = Trainer.epoch

def stopping(self, number, shown):
    if number == 1 and not self.folder.path.name.endswith("whole"):
        raise InterruptedError
    return epoch(self, number, shown)

def told(self, number, shown):
    known.append(epoch(self, number, shown))
    return known[-1]

with joined(torch.device("cpu")) as processes:
    for place in map(Path, sys.argv[1:]):
        def trained(resume):
            return train(recipe, out=place / "run", quiet=True, resume=resume, processes=processes)

        recipe, known = Recipe.from_json(json.loads((place / "recipe.json").read_text())), []
        Trainer.epoch = stopping
        try:
            trained(resume=False)
        except InterruptedError:
            pass
        Trainer.epoch = told
        run = trained(resume=True)
        torch.save((run.model.state_dict(), known), place / f"{processes.rank}.pt")
"""

NO_MOVE = attacks.PGD(steps=0, clean_start=True)  # the signs of PGD's steps would make much of rounding
CASES: dict[str, dict[str, Any]] = {
    # the last batch is one sample, too few for two processes
    "standard": {"method": Standard(), "batch_size": 479, "precise_bn": False},
    "ibp": {"batch_size": 255, "robust_weight": 0.5, "l1": 1e-3, "accumulate": 2, "validation": 0.2},
    "edac": {"method": EDAC(attack=NO_MOVE), "swa": SWA(start=0.0, every=2), "batch_size": 480},
    "augmented": {
        "dataset": Digits(augmentation=Augmentation(flip=True, crop_padding=1)),
        "network": MLP(hidden=(9,)),
        "batch_size": 480,
    },
}


@dataclass(frozen=True)
class Pair:
    """What two processes have made of a recipe, interrupted after the first epoch, and what one has."""

    recipe: Recipe
    folder: RunFolder
    found: list[tuple[dict[str, Tensor], list[dict[str, float]]]]  # of each process: its weights, its last epochs
    alone: RunFolder
    weights: dict[str, Tensor]


@pytest.fixture(scope="module")
def pairs(tiny: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    root = tmp_path_factory.mktemp("processes")
    recipes = {name: tiny(**{"shi": 0.0, "epochs": 2, **changes}) for name, changes in CASES.items()}
    for name, recipe in recipes.items():
        (root / name).mkdir()
        (root / name / "recipe.json").write_text(json.dumps(recipe.to_json()))
    places = [str(root / name) for name in recipes]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, *places],
            env=os.environ | where | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    made = {}
    for name, recipe in recipes.items():
        run = train(recipe, out=root / name / "alone", quiet=True)
        made[name] = (run.folder, run.model.state_dict())
    try:
        told = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], told
    return {
        name: Pair(
            recipe,
            RunFolder(root / name / "run"),
            [torch.load(root / name / f"{rank}.pt", weights_only=True) for rank in (0, 1)],
            *made[name],
        )
        for name, recipe in recipes.items()
    }


def function(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, without what a batch norm takes out again: the bias before it, which its running mean follows.

    Its gradient is nothing but rounding, which Adam makes as large as any other.
    """
    norms = [int(name.partition(".")[0]) for name in weights if name.endswith("running_mean")]
    lost = {name for norm in norms for name in (f"{norm - 1}.bias", f"{norm}.running_mean")}
    return {name: value for name, value in weights.items() if name not in lost}


def difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((value - second[name]).abs().max().item() for name, value in first.items())


def untimed(records: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_network_that_one_trains(pairs, case):
    pair = pairs[case]
    assert difference(function(pair.found[0][0]), function(pair.weights)) < 1e-5
    records, expected = untimed(jsonl.read(pair.folder.metrics)), untimed(jsonl.read(pair.alone.metrics))
    assert [record["epoch"] for record in records] == [1, 2]
    for record, other in zip(records, expected, strict=True):
        assert record == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_process_has_the_same_weights_and_knows_the_same_means(pairs, case):
    (weights, last), (others, last_of_other) = pairs[case].found
    assert difference(weights, others) == 0
    assert untimed(last) == untimed(last_of_other) == untimed(jsonl.read(pairs[case].folder.metrics))[1:]


def test_the_number_of_processes_is_noted(pairs):
    assert json.loads(pairs["ibp"].folder.versions.read_text())["processes"] == 2
    assert json.loads(pairs["ibp"].alone.versions.read_text())["processes"] == 1


@pytest.mark.parametrize("batch", [1, 3, 4, 9, 256])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_a_batch_make_the_batch(batch, count):
    shares = [Processes(rank, count).share(batch) for rank in range(count)]
    assert sum(share.weight for share in shares) == pytest.approx(1)
    taken = [index for share in shares for index in range(batch)[share.samples]]
    assert all(share.batch == batch and range(batch)[share.samples] for share in shares)
    if batch < count:
        assert taken == count * list(range(batch))
    else:
        assert taken == list(range(batch))
        assert [share.weight for share in shares] == [len(range(batch)[share.samples]) / batch for share in shares]


def test_a_process_alone_shares_nothing(tiny, tmp_path, monkeypatch):
    for name in ("all_reduce", "all_gather_object", "barrier", "init_process_group"):
        monkeypatch.delattr(torch.distributed, name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as processes:
        assert processes == ALONE
        assert processes.alone
        assert processes.first
        train(tiny(epochs=1), out=tmp_path, quiet=True, processes=processes)


def test_only_the_first_process_writes_and_tells(tiny, tmp_path, monkeypatch, capfd):
    (tmp_path / "mine.json").write_text(json.dumps(tiny(epochs=1).to_json()))
    monkeypatch.setattr("ctbench.cli.train.joined", lambda device: nullcontext(Other(rank=1)))
    assert main(["train", str(tmp_path / "mine.json"), "--out", str(tmp_path / "run")]) == 0
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "run").exists()


def test_a_process_without_a_device_of_its_own_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ValueError, match=r"process 3 of its machine, which has 2 devices: start as many processes as"),
        joined(torch.device("cuda")),
    ):
        pass


def test_random_draws_of_several_processes_leave_the_batches_alone(tiny, tmp_path, monkeypatch):
    """Whatever a method draws, every process goes through the same batches in an epoch, and draws something else."""
    recipe = tiny(dataset=Digits(augmentation=Augmentation(flip=True)), network=CNN3(width=2), epochs=1)
    data = recipe.dataset.load()
    batches: dict[int, list[Tensor]] = {0: [], 1: []}
    drawn: dict[int, Tensor] = {}

    def step(self, x, y, settings, generator):
        batches[self.processes.rank].append(x)
        drawn[self.processes.rank] = torch.rand(3, generator=generator)
        return {"loss": torch.zeros(()), "natural_accuracy": torch.zeros(())}

    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value])
    for rank in (0, 1):
        model = recipe.network.build(data.input_shape, data.classes)
        trainer = Trainer(
            recipe, RunFolder(tmp_path), model, data, torch.device("cpu"), processes=Processes(rank, count=2)
        )
        trainer.epoch(0, NoDisplay())
    assert all(torch.equal(a, b) for a, b in zip(*batches.values(), strict=True))
    assert not torch.equal(drawn[0], drawn[1])


class Other(Processes):
    """Another process than the first, which need not wait for it."""

    def share(self, batch):
        return ALONE.share(batch)


class NoDisplay:
    bars = None
