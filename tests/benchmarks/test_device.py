"""A training step waits for nothing, a round of branch and bound a few times, and the script for a GPU measures."""

import json
import time

import pytest
import torch
from benchmarks import device

from ctbench.methods import methods

(SETTING,) = device.tiny()
ROUND = 31  # waits: one for each of 6 steps of the ascent and at its end, 17 more, and 7 to decide what points are


def test_every_method_is_among_the_steps():
    names = {name for name, method in methods().items() if method.__module__.startswith("ctbench.")}
    assert {recipe.method.name for recipe in SETTING.recipes.values()} == names


@pytest.mark.parametrize("name", SETTING.recipes)
def test_a_training_step_waits_for_nothing(name):
    row = device.count_step(SETTING, name)
    assert row["waits"] == 0
    assert row["floor"] is None or row["floor"] < row["launches"]


def test_the_exact_line_search_is_the_exception():
    """The number of breakpoints depends on values."""
    base = SETTING.recipes["line-search, grid"]
    exact = device.replace(base, method=device.LineSearchTraining(), network=device.MLP(hidden=(8,)))
    row = device.count_step(device.replace(SETTING, recipes={"exact": exact}), "exact")
    assert 0 < row["waits"] < 50


def test_a_round_of_branch_and_bound_waits_a_few_times_whatever_it_finds():
    rounds = device.rounds_of_branch_and_bound()
    assert len(rounds) > 3
    assert {waits for _, waits in rounds} <= set(range(ROUND - 13, ROUND + 1))
    assert max(waits for _, waits in rounds) == ROUND


def test_a_search_of_more_forms_launches_more():
    small, large = (device.floor(SETTING, SETTING.recipes[name]) for name in ("standard", "pgd"))
    assert 0 < small < large


def jobs(*rows: object) -> list:
    def job(row: object) -> device.Row:
        if isinstance(row, Exception):
            raise row
        return {"value": row}

    return [("Table", device.partial(job, row)) for row in rows]


def test_results_are_written_at_once(tmp_path):
    seen = []
    look = ("Table", lambda: seen.append(json.loads((tmp_path / "device.json").read_text())["tables"]) or {"value": 2})
    device.run([*jobs(1), look], time.monotonic() + 60, "here", tmp_path)
    assert seen == [{"Table": [{"value": 1}]}]
    assert json.loads((tmp_path / "device.json").read_text())["tables"] == {"Table": [{"value": 1}, {"value": 2}]}
    assert (tmp_path / "device.md").read_text() == "here\n\n### Table\n\n| value |\n| --- |\n| 1 |\n| 2 |\n"


def test_a_failure_is_reported_and_the_others_go_on(tmp_path):
    tables, failed = device.run(jobs(1, MemoryError("full"), 3), time.monotonic() + 60, "here", tmp_path)
    assert failed
    assert [row.get("value") for row in tables["Table"]] == [1, None, 3]
    assert "MemoryError: full" in tables["Table"][1]["failed"]


def test_it_stops_in_time(capsys):
    tables, failed = device.run(jobs(1, 2), time.monotonic() - 1, "here", None)
    assert (tables, failed) == ({}, False)
    assert "the time is up: 2 of 2 results were not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--device", "nonsense"], "there is no device 'nonsense' to compute on"),
        (["--minutes", "0"], "'0' is not a number of minutes > 0, e.g. 8"),
        (["--minutes", "-1"], "'-1' is not a number of minutes > 0"),
        (["--minutes", "nan"], "'nan' is not a number of minutes > 0"),
        (["--minutes", "soon"], "'soon' is not a number of minutes > 0"),
    ],
)
def test_options_that_cannot_be_are_refused(capsys, options, fault):
    with pytest.raises(SystemExit) as error:
        device.main(options)
    assert error.value.code == 2
    assert fault in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        device.main(["--device", "cuda"])
    assert "there is no device 'cuda' to compute on" in capsys.readouterr().err


def test_tf32_is_timed_on_a_gpu_alone():
    for kind in ("cpu", "cuda"):
        jobs = device.times([SETTING], torch.device(kind), small=True)
        precisions = {job.args[2] for _, job in jobs if job.func is device.time_step}
        assert ("TF32" in precisions) == (kind == "cuda")


def test_it_measures_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "ROUNDS", 1)
    few = {name: SETTING.recipes[name] for name in ("ibp", "standard")}
    monkeypatch.setattr(device, "tiny", lambda: [device.replace(SETTING, recipes=few)])
    monkeypatch.setattr(device, "AGAIN", ("ibp",))
    monkeypatch.setattr(device, "counts", lambda setting: [("Launches and waits", lambda: {"launches": 1})])
    assert device.main(["--minutes", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    tables = json.loads((tmp_path / "device.json").read_text())["tables"]
    steps = next(rows for title, rows in tables.items() if title.startswith("Training steps"))
    assert [(row["method"], row["precision"]) for row in steps] == [
        ("ibp", "float32"),
        ("standard", "float32"),
        ("ibp", "bfloat16"),
    ]
    assert all(row["ms"] > 0 for row in steps)
    assert {title.partition(":")[0] for title in tables} == {
        "Training steps",
        "Certification",
        "Branch and bound",
        "Launches and waits",
    }
