"""Frauds in a search for radii: `check` finds each of them, or says what it cannot find."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.packs.conftest import failed

from ctbench.packs import check
from ctbench.regions import Linf
from ctbench.results import RadiusFiles, RunFolder, jsonl
from ctbench.results.checking import sealed, unsealed
from ctbench.training import load_run
from ctbench.verify import Records, radii
from ctbench.verify.radius_search import Bracket, Grid

GRID = Grid(0.1, 8)
SAMPLES = 12
WEAK, ROBUST, WRONG = 3, 0, 9  # a sample that is falsified at some radii, one that never is, and a misclassified one
OPEN = {"verdict": "unknown", "open": "not decided", "bound": -0.01, "stage": "crown"}
LINES = {
    "certified": {"verdict": "certified", "open": None, "bound": 0.2, "stage": "crown"},
    "falsified": {"verdict": "falsified", "open": None, "bound": None, "stage": "pgd"},
    "unknown": OPEN,
}


def search(path: Path, **options: Any) -> None:
    """Search the radii of some samples of a run, and go on with an existing search."""
    run = load_run(path)
    x, y = run.recipe.dataset.load().test[:SAMPLES]
    records = Records(run.folder.radii("linf-0.1").records, resume=True, about={"dataset": "digits", "network": "mlp"})
    radii(run.model, x, y, Linf(0.1), tolerance=0.0125, records=records, **options)


@pytest.fixture(scope="module")
def searched(made, tmp_path_factory) -> Path:
    """A run with a search for radii and no certification."""
    path = Path(shutil.copytree(made, tmp_path_factory.mktemp("searched") / "run"))
    shutil.rmtree(path / "certified")
    search(path)
    found = RunFolder(path).radii("linf-0.1").read().samples
    assert found[WEAK].certified
    assert found[WEAK].falsified
    assert (found[ROBUST].certified, found[ROBUST].falsified, found[WRONG].certified) == (0.1, None, None)
    return path


@pytest.fixture
def run(searched, tmp_path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


def files_of(run: Path) -> RadiusFiles:
    return RunFolder(run).radii("linf-0.1")


def forge(run: Path, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Edit the trials, with checksums that fit."""
    trials = jsonl.read(files_of(run).records)
    jsonl.rewrite(files_of(run).records, [sealed(unsealed(trial)) for trial in edit(trials) or trials])


def forge_settings(run: Path, **changes: Any) -> None:
    path = files_of(run).settings
    jsonl.write_json(path, sealed(unsealed(jsonl.read_json(path)) | changes))


def searched_again(
    trials: list[dict[str, Any]], index: int, verdict: str, above: tuple[int, str] = (GRID.number, "")
) -> list[dict[str, Any]]:
    """The trials, with those that a search makes of one sample if all have this verdict, or another above a step."""
    trial = next(trial for trial in trials if trial["index"] == index)
    bracket, new = Bracket(GRID.number + 1), list[dict[str, Any]]()
    while (radius := bracket.next()) is not None:
        said = LINES[verdict if radius <= above[0] else above[1]]
        line = trial | said | {"eps": GRID.eps(radius), "prediction": trial["label"], "reason": ""}
        new.append(line)
        bracket.learn(radius, line["verdict"])
    return [trial for trial in trials if trial["index"] != index] + new


def bad_samples_are_removed(run):
    forge(run, lambda trials: [trial for trial in trials if trial["index"] not in (WEAK, WRONG)])


def falsified_trials_are_removed(run):
    forge(run, lambda trials: [trial for trial in trials if trial["verdict"] != "falsified"])


def a_certified_trial_is_removed(run):
    forge(run, lambda trials: [t for t in trials if (t["index"], t["eps"]) != (ROBUST, GRID.eps(4))])


def a_trial_is_there_twice(run):
    forge(run, lambda trials: [*trials, trials[0]])


def a_trial_lies_at_a_radius_that_no_search_asks_for(run):
    def edit(trials):
        trial = next(trial for trial in trials if trial["index"] == ROBUST)
        return [*trials, trial | {"eps": 0.033}]

    forge(run, edit)


def the_samples_are_said_to_be_more(run):
    forge_settings(run, samples=[0, 300])


def the_samples_are_said_to_be_fewer(run):
    forge_settings(run, samples=[0, 9])


def the_samples_are_not_said(run):
    path = files_of(run).settings
    settings = unsealed(jsonl.read_json(path))
    del settings["samples"]
    jsonl.write_json(path, sealed(settings))
    bad_samples_are_removed(run)


def a_misclassified_sample_is_called_unknown(run):
    forge(run, lambda trials: searched_again(trials, WRONG, "unknown"))


def a_misclassified_trial_is_called_unknown(run):
    def edit(trials):
        for trial in trials:
            if trial["index"] == WRONG:
                trial.update(OPEN, prediction=trial["label"])

    forge(run, edit)


def a_misclassified_sample_has_another_wrong_class(run):
    def edit(trials):
        for trial in trials:
            if trial["index"] == WRONG:
                classes = {trial["label"], trial["prediction"]}
                trial["prediction"] = next(number for number in range(10) if number not in classes)

    forge(run, edit)


def a_robust_sample_is_called_misclassified(run):
    def edit(trials):
        mine = next(trial for trial in trials if trial["index"] == ROBUST)
        mine |= {"verdict": "misclassified", "bound": None, "stage": "clean", "prediction": (mine["label"] + 1) % 10}
        return [*(trial for trial in trials if trial["index"] != ROBUST), mine]

    forge(run, edit)


def a_weak_sample_is_called_certified(run):
    forge(run, lambda trials: searched_again(trials, WEAK, "certified"))


def a_robust_sample_is_called_falsified(run):
    forge(run, lambda trials: searched_again(trials, ROBUST, "falsified"))


def certified_steps(run) -> int:
    """The largest certified radius of the weak sample, in steps; the next one is falsified."""
    sample = files_of(run).read().samples[WEAK]
    assert sample.falsified == pytest.approx(sample.certified + GRID.tolerance)
    return round(sample.certified / GRID.tolerance)


def a_certified_radius_is_one_step_larger(run):
    steps = certified_steps(run)
    forge(run, lambda trials: searched_again(trials, WEAK, "certified", (steps + 1, "falsified")))


def a_falsified_radius_is_one_step_smaller(run):
    steps = certified_steps(run)
    forge(run, lambda trials: searched_again(trials, WEAK, "certified", (steps - 1, "falsified")))


def a_robust_sample_stands_in_place_of_a_weak_one(run):
    def edit(trials):
        good = [trial | {"index": WEAK} for trial in trials if trial["index"] == ROBUST]
        return [trial for trial in trials if trial["index"] != WEAK] + good

    forge(run, edit)


def the_network_is_another(run):
    forge_settings(run, network_digest="0" * 16)


def the_radius_is_another(run):
    forge_settings(run, eps=0.2)


def the_largest_radius_is_another(run):
    forge_settings(run, largest=0.2, tolerance=0.025)


def the_tolerance_is_another(run):
    forge_settings(run, tolerance=0.0124)


def the_file_has_the_name_of_another_radius(run):
    for path in files_of(run).records.parent.iterdir():
        path.rename(path.with_name(path.name.replace("0.1", "0.2")))


def trials_contradict_each_other(run):
    def edit(trials):
        trial = next(trial for trial in trials if trial["verdict"] == "falsified" and trial["index"] == WEAK)
        return [*trials, trial | {"eps": GRID.eps(1)}]

    forge(run, edit)


FRAUDS = [
    (bad_samples_are_removed, "it lacks 2 of 12 samples, e.g. sample 3"),
    (falsified_trials_are_removed, f"sample {WEAK} lacks a trial at eps"),
    (a_certified_trial_is_removed, f"sample {ROBUST} lacks a trial at eps 0.05"),
    (a_trial_is_there_twice, "has two trials at one radius"),
    (a_trial_lies_at_a_radius_that_no_search_asks_for, "has a trial at eps 0.033, for which its search does not ask"),
    (the_samples_are_said_to_be_more, "it lacks 288 of 300 samples, e.g. sample 12"),
    (the_samples_are_said_to_be_fewer, "it has sample 9, and its settings say samples 0 to 8"),
    (the_samples_are_not_said, "its settings do not say which samples were to be tried"),
    (a_misclassified_sample_is_called_unknown, f"sample {WRONG} is unknown with prediction"),
    (a_misclassified_trial_is_called_unknown, f"sample {WRONG} lacks a trial at eps"),
    (a_misclassified_sample_has_another_wrong_class, "but the network predicts"),
    (a_robust_sample_is_called_misclassified, "but the network predicts"),
    (a_weak_sample_is_called_certified, "is certified in the records, but it is falsified"),
    (a_robust_sample_is_called_falsified, "is falsified in the records, but it is certified"),
    (a_certified_radius_is_one_step_larger, "is certified in the records, but it is falsified"),
    (a_falsified_radius_is_one_step_smaller, "is falsified in the records, but it is certified"),
    (a_robust_sample_stands_in_place_of_a_weak_one, "is about another image or label"),
    (the_network_is_another, "the network_digest differs"),
    (the_radius_is_another, "these do not agree"),
    (the_largest_radius_is_another, "these do not agree"),
    (the_tolerance_is_another, "these do not agree"),
    (the_file_has_the_name_of_another_radius, "its name says otherwise"),
    (trials_contradict_each_other, "is certified at eps"),
]


@pytest.mark.parametrize(("plant", "message"), FRAUDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fraud_is_found(plant, message, run):
    plant(run)
    told = failed(run)
    assert any(message in line and "radii/linf-0." in line for line in told), told


def test_an_honest_search_holds(run):
    claims = list(check(run, samples=SAMPLES))
    assert all(claim.holds for claim in claims), [str(claim) for claim in claims]
    said = "\n".join(map(str, claims))
    assert "samples 0 to 11 of 359 test images, each with all trials that its search asks for" in said
    assert "11 of 11 samples were certified again at their largest radius; 3 of 3 were falsified again" in said


def test_open_trials_are_attacked_and_what_nothing_proves_is_said(run):
    """A falsified sample that is called unknown is no false proof, but its adversarial accuracy seems higher."""
    forge(run, lambda trials: searched_again(trials, WEAK, "unknown"))
    claims = list(check(run, samples=SAMPLES))
    assert all(claim.holds for claim in claims), [str(claim) for claim in claims]
    said = "\n".join(map(str, claims))
    assert "of 1 samples with an open trial an attack tried 1 at the largest open radius, and falsified 1" in said
    assert "nothing proves that samples have no counterexamples at smaller radii than said" in said


def test_an_interrupted_search_is_to_be_finished(run):
    shutil.rmtree(files_of(run).records.parent)
    search(run, total=1e-9)
    assert any("it has no records" in line for line in failed(run))
    search(run)
    assert failed(run) == []


def test_a_search_that_was_cut_off_is_to_be_finished(run):
    forge(run, lambda trials: trials[: len(trials) // 2])
    assert any("finish it with --resume" in line for line in failed(run))
    search(run)
    assert failed(run) == []
