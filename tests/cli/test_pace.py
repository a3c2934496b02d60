"""How far the runs of a sweep are, and the time left: from hand-made records."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ctbench.cli.pace import Pace, Plan, summary
from ctbench.methods import PGD
from ctbench.results import RunFolder, Verdict, jsonl

HOW = {"stages": ["Bound(domain=Interval())"], "timeout": 60.0}


@pytest.fixture
def plan(tiny, tmp_path) -> Callable[..., Plan]:
    """A plan of ten epochs and 20 samples, in a folder of its own."""

    def make(name: str, *, samples: int | None = 20, how: dict[str, object] = HOW, **changes: object) -> Plan:
        folder, recipe = RunFolder(tmp_path / name), tiny(epochs=10, **changes)
        return Plan(name, recipe, folder, folder.certification("linf-0.05"), how, samples)

    return make


def trained(plan: Plan, epochs: int, seconds: float = 2.0) -> Plan:
    """The files that a training leaves after this many epochs."""
    folder = plan.folder
    folder.path.mkdir()
    jsonl.write_json(folder.recipe, plan.recipe.to_json())
    jsonl.append(folder.metrics, [{"epoch": number + 1, "seconds": seconds} for number in range(epochs)])
    safetensors.torch.save_file({"a": torch.ones(1)}, folder.state, metadata={"epochs_done": str(epochs)})
    if epochs == plan.recipe.epochs:
        folder.weights.touch()
    return plan


def certified(plan: Plan, samples: int, seconds: float = 3.0, verdict: Verdict = Verdict.CERTIFIED) -> Plan:
    """The files that a certification leaves after this many samples."""
    plan.certified.start({**plan.how, "eps": 0.05, "samples": [0, 20]}, resume=False)
    records = [{"index": number, "seconds": seconds, "verdict": verdict} for number in range(samples)]
    jsonl.append(plan.certified.records, records)
    return plan


def left(plan: Plan, tmp_path: Path) -> str:
    return Pace.of(tmp_path).left(plan)


def test_each_run_says_how_far_it_is(plan):
    assert plan("a").state == "new"
    assert trained(plan("b"), 0).state == "new"
    assert trained(plan("c"), 4).state == "interrupted at epoch 4 of 10"
    assert trained(plan("d"), 10).state == "trained"
    assert certified(trained(plan("e"), 10), 7).state == "certified 7 of 20 samples"
    assert certified(trained(plan("f"), 10), 20).kind == "complete"
    more = replace(certified(trained(plan("g"), 10), 20), samples=50)
    assert (more.kind, more.state) == ("partly certified", "certified 20 of 50 samples")
    fewer = replace(more, samples=5)
    assert fewer.state == "certified 20 of 20 samples"


def test_nothing_is_known_before_an_epoch_and_a_sample(plan, tmp_path):
    assert left(plan("a"), tmp_path) == "unknown until one epoch has run"
    assert left(trained(plan("b"), 3), tmp_path) == "14 s of training, then unknown until one sample is certified"
    assert left(trained(plan("c"), 10), tmp_path) == "unknown until one sample is certified"
    assert left(certified(trained(plan("d"), 10), 0), tmp_path) == "unknown until one sample is certified"


def test_the_run_itself_comes_before_its_recipe_and_its_recipe_before_runs_alike(plan, tmp_path):
    new, own = plan("new"), plan("own")
    certified(trained(plan("alike", batch_size=64), 10, 0.5), 20, 0.25)
    assert left(new, tmp_path) == "10 s"
    certified(trained(plan("other seed", seed=7), 10, 1.0), 20, 0.5)
    assert left(new, tmp_path) == "20 s"
    certified(trained(own, 10, 4.0), 10, 2.0)
    assert left(own, tmp_path) == "20 s"
    assert left(new, tmp_path) == "45 s", "(10 + 40) / 20 seconds an epoch and (10 + 20) / 30 a sample"


@pytest.mark.parametrize("changes", [{"method": PGD()}, {"train_samples": 9}, {"network": None}])
def test_runs_of_another_method_network_or_size_say_nothing(plan, tmp_path, changes, tiny):
    changes = {name: value or replace(tiny().network, width=3) for name, value in changes.items()}
    certified(trained(plan("other", **changes), 10), 20)
    assert left(plan("new"), tmp_path) == "unknown until one epoch has run"


def test_certifications_by_other_stages_say_nothing_and_implied_samples_took_no_time(plan, tmp_path):
    certified(trained(plan("other", how={"stages": ["Milp()"], "timeout": 60.0}), 10), 20)
    new = trained(plan("new"), 10)
    assert left(new, tmp_path) == "unknown until one sample is certified"
    jsonl.append(
        certified(new, 2).certified.records, [{"index": 5, "seconds": 0.0, "verdict": "certified", "decided_at": 0.1}]
    )
    assert left(replace(new), tmp_path) == "51 s"


def test_with_more_stages_unknown_samples_are_tried_again_and_other_settings_are_refused(plan, tmp_path):
    begun = certified(trained(plan("a"), 10), 20, verdict=Verdict.UNKNOWN)
    more = replace(begun, how=HOW | {"timeout": 90.0})
    more.check()
    assert (more.done, more.kind) == (0, "trained")
    with pytest.raises(ValueError, match=r"under other settings \(timeout was 60.0, now 30.0\): choose another place"):
        replace(begun, how=HOW | {"timeout": 30.0}).check()


def test_the_number_of_samples_may_be_that_of_another_run(plan, tmp_path):
    certified(trained(plan("other", seed=3), 10, 0.0), 20, 1.5)
    assert left(plan("new", samples=None), tmp_path) == "30 s"


def test_other_things_in_the_folder_are_no_runs(plan, tmp_path):
    (tmp_path / "file").touch()
    for name, content in (("list", []), ("method", {"method": "ibp"})):
        (tmp_path / name).mkdir()
        jsonl.write_json(tmp_path / name / "recipe.json", content)
    assert left(plan("new"), tmp_path) == "unknown until one epoch has run"


def test_the_summary_counts_runs_and_divides_the_work(plan, tmp_path):
    plans = [certified(trained(plan("a"), 10), 20), trained(plan("b", seed=1), 4), plan("c", seed=2)]
    lines = list(summary(plans, Pace.of(tmp_path), 2))
    assert lines == [
        "3 runs: 1 complete, 1 interrupted, 1 new",
        "about 2.5 min of work left, about 1.3 min with 2 at a time",
    ]
    lines = list(summary([*plans[:2], plan("d", method=PGD())], Pace.of(tmp_path), 2))
    assert lines[1] == "about 1.2 min of work left, about 1.2 min with 2 at a time, besides 1 run whose time is unknown"
    assert list(summary([plan("d", method=PGD())], Pace.of(tmp_path), 1)) == [
        "1 run: 1 new",
        "the time left is unknown until one epoch has run and one sample is certified",
    ]
