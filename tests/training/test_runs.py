"""A run folder: what it holds, and which run may use it."""

import json
from dataclasses import replace

import pytest
import torch
from tests.training_runs import (
    MEASURED,
    OF_BOXES,
    STEPS,
    Killed,
    interrupt_at,
    same,
    weights,
)

from ctbench.datasets import Digits
from ctbench.networks import Normalize
from ctbench.results import RunFolder, jsonl, locks
from ctbench.training import (
    Recipe,
    SmoothRamp,
    load_run,
    train,
)

# ---------------------------------------------------------------------------------------------- run folder


def test_a_run_folder_holds_all_there_is_to_know(tiny, tmp_path):
    recipe = tiny()
    run = train(recipe, out=tmp_path / "run", quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "metrics.jsonl",
        "recipe.json",
        "run.lock",
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


@pytest.mark.parametrize("normalize", [True, False])
def test_a_network_begins_with_the_normalisation_of_its_data_unless_the_recipe_says_no(
    normalize, tiny, tmp_path, monkeypatch
):
    data = replace(Digits().load(), mean=(0.3,), std=(0.4,))
    monkeypatch.setattr(Digits, "load", lambda dataset, root=None: data)
    run = train(tiny(normalize=normalize, epochs=1, ramp=SmoothRamp(end=1)), out=tmp_path, quiet=True)
    assert isinstance(run.model[0], Normalize) == normalize
    assert ("0.mean" in weights(load_run(tmp_path))) == normalize


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
    with pytest.raises(ValueError, match=r"the recipe is 'digits_ibp': give a Recipe, e\.g\. ctbench\.recipe\(name\)"):
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
    with pytest.raises(ValueError, match=r"already holds this run: resume it \(--resume\), or choose another folder"):
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
    recipe = tiny(ramp=SmoothRamp(start=0, end=2))
    run = train(recipe, out=tmp_path, quiet=True)
    assert same(weights(train(recipe, out=tmp_path, resume=True, quiet=True)), weights(run))


def test_an_incomplete_run_is_not_loaded(tiny, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, STEPS + 2)
    with pytest.raises(Killed):
        train(tiny(), out=tmp_path, quiet=True)
    with pytest.raises(FileNotFoundError, match="is not complete: finish it with resume"):
        load_run(tmp_path)


def test_a_folder_that_is_no_run_is_not_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no recipe\.json"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        load_run(tmp_path / "nowhere")


def test_a_recipe_that_no_run_has_written_is_not_overwritten(tiny, tmp_path):
    jsonl.write_json(RunFolder(tmp_path).recipe, tiny(seed=5).to_json())
    with pytest.raises(ValueError, match="holds the run of another recipe"):
        train(tiny(), out=tmp_path, quiet=True)
    assert Recipe.from_json(jsonl.read_json(RunFolder(tmp_path).recipe)).seed == 5


@pytest.mark.parametrize("resume", [True, False])
def test_two_trainings_at_once_do_not_write_one_folder(tiny, tmp_path, resume):
    def another_begins(metrics: dict[str, float], model: torch.nn.Module) -> None:
        with pytest.raises(ValueError, match=r"another process writes .*run: wait for it, or choose another place"):
            train(tiny(epochs=2), out=tmp_path / "run", resume=True, quiet=True)
        with pytest.raises(ValueError, match="holds the run of another recipe"):
            train(tiny(epochs=2, seed=1), out=tmp_path / "run", resume=resume, quiet=True)

    run = train(tiny(epochs=2), out=tmp_path / "run", quiet=True, on_epoch=another_begins)
    assert Recipe.read(run.folder.recipe).seed == 0
    assert [record["epoch"] for record in jsonl.read(run.folder.metrics)] == [1, 2]


def test_a_second_training_of_another_recipe_is_refused_before_the_first_has_an_epoch(tiny, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with locks.alone(folder.lock, folder.path), pytest.raises(ValueError, match="another process writes"):
        train(tiny(epochs=1), out=folder.path, quiet=True)
    assert [path.name for path in folder.path.iterdir()] == ["run.lock"]
    train(tiny(epochs=1), out=folder.path, quiet=True)


def test_a_complete_run_is_loaded_while_another_process_holds_the_folder(tiny, tmp_path):
    run = train(tiny(epochs=1), out=tmp_path, quiet=True)
    with locks.alone(run.folder.lock, tmp_path):
        assert same(weights(train(tiny(epochs=1), out=tmp_path, resume=True, quiet=True)), weights(run))


def test_the_callback_gets_the_metrics_of_each_epoch_and_the_network(tiny, tmp_path):
    seen = []
    run = train(
        tiny(), out=tmp_path, quiet=True, on_epoch=lambda metrics, model: seen.append((metrics, model.training))
    )
    assert [metrics for metrics, _ in seen] == jsonl.read(run.folder.metrics)
    assert [training for _, training in seen] == [False] * 3


def test_a_part_of_the_training_set_is_chosen_by_the_seed(tiny, tmp_path):
    seen = []

    def note(metrics, model):
        seen.append(metrics["natural_loss"])

    for name, changes in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        train(tiny(epochs=1, train_samples=20, **changes), out=tmp_path / name, quiet=True, on_epoch=note)
    assert seen[0] == seen[1] != seen[2]
    with pytest.raises(ValueError, match="train_samples is 1439, but the training set has 1438 samples"):
        train(tiny(epochs=1, train_samples=1439), out=tmp_path / "d", quiet=True)
