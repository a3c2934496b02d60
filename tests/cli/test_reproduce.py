"""`ctbench reproduce`: its list, its trials, its figures and messages; and `ctbench list figures`."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctbench import report
from ctbench.cli import main, reproduce
from ctbench.experiments import PAPERS, ExperimentScale, figures, running
from ctbench.report import draw
from ctbench.results import jsonl

QUICK = ("--jobs", 1, "--quiet", "--out", "out")
FIGURE = ("reproduce", "robust-accuracy", "2a", *QUICK)  # 2 seeds of 4 trials
FOLDER = Path("out/robust-accuracy/tiny")


@pytest.fixture
def measured(monkeypatch) -> list[dict[str, object]]:
    """The measured trials. Here neither measuring nor drawing takes time: a drawing is its title."""
    seen = []

    def quickly(trial) -> dict[str, float]:
        seen.append(trial.key)
        error = trial.x / 100 + trial.recipe.seed / 10
        names = ("standard_error", "robust_error", "train_error", "unstable", "unstable_sum")
        return dict.fromkeys(names, error)

    monkeypatch.setattr(running, "measure", quickly)
    monkeypatch.setattr(report, "draw", lambda found, plot, path: path.write_text(plot.title))
    return seen


@pytest.mark.parametrize("paper", PAPERS)
def test_without_figures_it_lists_them(succeeds, paper):
    lines = succeeds("reproduce", paper).splitlines()
    assert [tuple(line.split(maxsplit=1)) for line in lines] == [
        (number, figure.claim) for number, figure in figures(paper).items()
    ]
    assert not list(Path().iterdir())


def test_figures_can_be_listed(succeeds):
    headings, *lines = succeeds("list", "figures").splitlines()
    assert headings.split() == ["paper", "figure", "records", "claim"]
    shown = [line.split()[:2] for line in lines if line[:1].strip()]
    assert shown == [[paper, number] for paper in PAPERS for number in figures(paper)]


def test_a_tiny_run_writes_a_figure_and_its_numbers_and_is_not_repeated(succeeds, monkeypatch):
    monkeypatch.setattr(reproduce, "TINY", ExperimentScale(seeds=1, epochs=1, test_samples=5, points=2, candidates=1))
    assert succeeds(*FIGURE) == f"{FOLDER}/2a.png\n"
    assert {path.name for path in FOLDER.iterdir()} == {"segments_5.jsonl", "segments_5.lock", "2a.png", "2a.csv"}
    records = jsonl.read(FOLDER / "segments_5.jsonl")
    with (FOLDER / "2a.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = {(row["series"], row["number of components k"], float(row["robust_error"])) for row in rows}
    assert points == {(record["series"], f"{record['x']:g}", record["robust_error"]) for record in records}
    assert len(rows) == len(records) == 4
    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    monkeypatch.setattr(running, "measure", None)
    assert succeeds(*FIGURE) == f"{FOLDER}/2a.png\n"
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before


def test_figures_of_one_experiment_share_its_trials(succeeds, measured):
    assert succeeds("reproduce", "robust-accuracy", "6a", "7a", *QUICK) == f"{FOLDER}/6a.png\n{FOLDER}/7a.png\n"
    assert len(measured) == len(jsonl.read(FOLDER / "budget_linf.jsonl")) == 8


def test_scales_have_places_of_their_own(succeeds, measured):
    succeeds(*FIGURE, "--seeds", 3)
    assert len(measured) == 12
    assert succeeds(*FIGURE, "--scale", "paper", "--seeds", 1) == "out/robust-accuracy/paper/2a.png\n"
    assert len(measured) == 12 + 6 * 2 * 3
    assert (FOLDER / "2a.png").read_text() == "Fig. 2a, at a tiny scale"
    assert Path("out/robust-accuracy/paper/2a.png").read_text() == "Fig. 2a"


def test_the_progress_is_shown_on_standard_error_of_a_terminal(measured, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert main(["reproduce", "robust-accuracy", "2a", "--jobs", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "runs/reproduce/robust-accuracy/tiny/2a.png\n"
    assert "figure 2a" in said.err
    assert "8/8" in said.err
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert main(["reproduce", "robust-accuracy", "2a", "--jobs", "1"]) == 0
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------ incomplete figures


@pytest.fixture
def ten_seconds(monkeypatch, measured) -> None:
    """By the clock each trial takes ten seconds."""
    now, quickly = [0.0], running.measure

    def slowly(trial) -> dict[str, float]:
        now[0] += 10
        return quickly(trial)

    monkeypatch.setattr(running, "measure", slowly)
    for module in (running, reproduce):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))


def test_whole_seeds_are_shown_and_counted(succeeds, measured, ten_seconds):
    out = succeeds(*FIGURE, "--seeds", 3, "--total", 55)
    assert out == f"figure 2a: 6 of 12 trials are done: it shows 1 of 3 seeds\n{FOLDER}/2a.png\n"
    with (FOLDER / "2a.csv").open() as file:
        assert {(row["seeds"], row["robust_error"]) for row in csv.DictReader(file)} == {("1", "0.01"), ("1", "0.1")}
    assert succeeds(*FIGURE) == f"{FOLDER}/2a.png\n"
    assert len(measured) == 8


@pytest.mark.parametrize(("total", "done"), [(1e-9, 1), (25, 3)])
def test_where_no_seed_is_whole_it_says_what_to_do(fails, succeeds, ten_seconds, total, done):
    line = fails(*FIGURE, "--total", total)
    assert (
        f"figure 2a: {done} of 8 trials are done, but no seed has all 4, so nothing can be drawn: run the same" in line
    )
    assert not list(FOLDER.glob("2a.*"))
    assert "it shows 1 of 2 seeds" in succeeds(*FIGURE, "--total", 35)


def test_the_total_is_for_all_figures(capsys, ten_seconds):
    arguments = ["reproduce", "robust-accuracy", "6a", "4a", *QUICK, "--total", 95]
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == f"{FOLDER}/6a.png\n"
    assert "figure 4a: 2 of 8 trials are done" in said.err


def test_an_interruption_keeps_what_was_done(capsys, succeeds, monkeypatch, measured):
    quickly = running.measure

    def interrupted(trial) -> dict[str, float]:
        if len(measured) == 3:
            raise KeyboardInterrupt
        return quickly(trial)

    monkeypatch.setattr(running, "measure", interrupted)
    assert main([str(argument) for argument in FIGURE]) == 130
    assert capsys.readouterr().err == (
        "ctbench: interrupted; finished trials are kept, and the same command continues\n"
    )
    monkeypatch.setattr(running, "measure", quickly)
    succeeds(*FIGURE)
    assert len(measured) == 8


def test_without_matplotlib_the_numbers_are_kept(fails, monkeypatch, measured):
    monkeypatch.setattr(report, "draw", draw)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in fails(*FIGURE)
    assert (FOLDER / "2a.csv").exists()


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["magic"], "there is no paper 'magic': name one of ctbench, generalisation, robust-accuracy, sabr"),
        (["robust-accuracy", "2a", "9z"], "robust-accuracy has no figure '9z'; there are 2a, 3a, 4a, 5b"),
        (["robust-accuracy", "2a", "--total", 0], "'0' is not a number of seconds > 0"),
        (["robust-accuracy", "2a", "--total", "nan"], "'nan' is not a number of seconds > 0"),
        (["robust-accuracy", "2a", "--total", "soon"], "'soon' is not a number of seconds > 0"),
        (["robust-accuracy", "2a", "--seeds", 0], "'0' is not a whole number of 1 or more"),
        (["robust-accuracy", "2a", "--jobs", 0], "'0' is not a whole number of 1 or more"),
        (["robust-accuracy", "2a", "--scale", "huge"], "invalid choice: 'huge'"),
        (
            ["robust-accuracy", "2a", "--scale", "small"],
            "--scale is small, which figure 2a of synthetic data does not have",
        ),
        (["sabr", "2a"], "sabr has no figure '2a'; there are table-1"),
        (["ctbench", "figure-4", "--total", 1e-9], "figure-4 cannot be shown yet, the time was over before: train"),
        ([], "the following arguments are required: PAPER (see"),
    ],
)
def test_bad_input_is_explained_in_a_line(fails, arguments, said, measured):
    assert said in fails("reproduce", *arguments)
    assert not measured
    assert not list(Path().iterdir())


def test_records_of_other_trials_are_refused(succeeds, fails, measured, monkeypatch):
    succeeds(*FIGURE)
    monkeypatch.setattr(reproduce, "TINY", ExperimentScale(seeds=2, epochs=1, test_samples=5, points=2, candidates=1))
    assert "segments_5.jsonl holds a trial" in fails(*FIGURE)
    assert len(measured) == 8


# ------------------------------------------------------------------------------------------ trained networks


def test_a_closed_form_writes_its_numbers_its_picture_and_whether_the_claim_holds(succeeds):
    folder = Path("out/sabr/tiny")
    first, *places = succeeds("reproduce", "sabr", "figure-4", *QUICK).splitlines()
    assert first.startswith(
        "figure-4: the claim holds here: tangent 0.0347, mean radius 0.362 (means; so in 60 of 60 rows)"
    )
    assert places == [f"{folder}/figure-4.csv", f"{folder}/figure-4.txt", f"{folder}/figure-4.png"]
    assert (folder / "figure-4.txt").read_text().startswith("Claim: after a ReLU whose inputs are mostly negative")
    with (folder / "figure-4.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert all(row["tangent"] < row["mean radius"] < row["radius"] for row in rows)


def test_trials_run_in_other_processes(succeeds, fails, monkeypatch):
    monkeypatch.setattr(reproduce, "TINY", ExperimentScale(seeds=1, epochs=1, test_samples=5, points=1, candidates=1))
    assert "--on local:2 and 1 workers are two answers" in fails(*FIGURE, "--on", "local:2")
    both = ("reproduce", "robust-accuracy", "2a", "--quiet", "--out", "both", "--on", "local:2")
    assert succeeds(*both) == "both/robust-accuracy/tiny/2a.png\n"
    assert succeeds(*FIGURE) == f"{FOLDER}/2a.png\n"
    assert (Path("both/robust-accuracy/tiny") / "2a.csv").read_text() == (FOLDER / "2a.csv").read_text()
