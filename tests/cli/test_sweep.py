"""`ctbench sweep`: several recipes, trained, certified and compared, whatever fails."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.short import TINY, shortened

from ctbench.cli import demo, main, sweep
from ctbench.cli.arguments.sweep import seeds
from ctbench.engine import Here
from ctbench.recipes import recipe
from ctbench.results import jsonl
from ctbench.training import train


@pytest.fixture
def here(monkeypatch) -> list[list[str]]:
    """What sweep would do in other processes runs in this one, and recipes are cut short; the commands that ran."""
    ran, work = list[list[str]](), sweep.work

    def noted(commands: list[list[str]]) -> Iterator[tuple[int | None, str]]:
        ran.extend(commands)
        return work(commands)

    monkeypatch.setattr(sweep, "engine", lambda *_, **__: Here())
    monkeypatch.setattr(sweep, "work", noted)
    monkeypatch.setattr("ctbench.cli.show.recipe", shortened)
    return ran


def test_sweep_trains_certifies_and_compares(succeeds, tmp_path, here):
    rows = []
    for _ in range(2):  # the second time there is nothing left to do
        out = succeeds("sweep", "digits_stand*", "--out", tmp_path, "--samples", 5, "--stages", "fast", "--markdown")
        (row,) = (line for line in out.splitlines() if line.startswith("| digits_standard"))
        assert [cell.strip() for cell in row.split("|")][5:8] == ["linf", "0.1", "5"]
        rows.append(row)
    assert rows[0] == rows[1]
    assert [command[0] for command in here] == ["train", "certify"] * 2
    assert len(jsonl.read(tmp_path / "digits_standard" / "metrics.jsonl")) == 2


def test_compare_sweep_and_demo_tell_of_stages_that_failed(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setattr("ctbench.verify.stages.Bound.__call__", lambda *_: 1 / 0)
    assert main(["certify", str(run), "--samples", "20", "--stages", "fast"]) == 0
    table = capsys.readouterr().err
    assert main(["compare", str(run)]) == 0
    said = capsys.readouterr()
    assert "interval, crown-ibp, crown" in said.out
    lines = [
        cell.strip() for cell in next(line for line in said.err.splitlines() if "interval" in line).split("│")[1:-1]
    ]
    assert lines == [
        "run",
        "interval",
        re.search(r"interval +│ +(\d+)", table)[1],
        "ZeroDivisionError: division by zero",
    ]
    monkeypatch.setattr(demo, "recipe", shortened)
    assert main(["demo", "--out", "demo", "--strict"]) == 2
    said = capsys.readouterr()
    assert "digits_ibp" in said.out
    assert all(re.search(rf"{name} +│ interval +│", said.err) for name in demo.RECIPES)
    assert "error: --strict, and stages failed (interval, crown-ibp, crown, alpha-crown)" in said.err
    (tmp_path / "sweep").mkdir()
    (Path("demo") / "digits_ibp").rename(tmp_path / "sweep" / "digits_ibp")
    monkeypatch.setattr(sweep, "engine", lambda *_, **__: Here())
    monkeypatch.setattr(sweep, "work", lambda _: iter([(None, "")]))
    monkeypatch.setattr("ctbench.cli.show.recipe", shortened)
    for strict in (True, False):
        options = ["--strict"] if strict else []
        assert main(["sweep", "digits_ibp", "--out", str(tmp_path / "sweep"), *options]) == 2 * strict
        said = capsys.readouterr()
        assert re.search(r"digits_ibp +│ interval +│", said.err)


def test_sweep_goes_on_after_a_failure_and_tells_of_it(capsys, tmp_path):
    """In processes of their own, one of which finds a complete run of its recipe, and the other a damaged state."""
    whole, other = recipe("digits_ibp"), recipe("digits_standard")
    train(replace(shortened(whole.name), network=whole.network), out=tmp_path / whole.name, quiet=True)
    for each in (whole, other):
        (tmp_path / each.name).mkdir(exist_ok=True)
        jsonl.write_json(tmp_path / each.name / "recipe.json", each.to_json())
    jsonl.write_json(tmp_path / other.name / "versions.json", {})
    (tmp_path / other.name / "state.safetensors").write_text("nonsense")
    assert (
        main(["sweep", "digits_standard", "digits_ibp", "--out", str(tmp_path), "--samples", "5", "--stages", "fast"])
        == 2
    )
    said = capsys.readouterr()
    assert "digits_ibp" in said.out
    assert "digits_standard" not in said.out
    *lines, last = said.err.splitlines()
    assert "not all of the 2 runs could be trained and certified. digits_standard: ctbench: error:" in last
    assert "state.safetensors is damaged" in last
    assert [line.split(" after ")[0] for line in lines] == [
        "digits_standard: begins",
        "digits_standard: failed",
        "digits_ibp: begins",
        "digits_ibp: complete",
    ]


@pytest.mark.parametrize("timeout", ["0", "-3", "none"])
def test_sweep_refuses_a_timeout_before_it_trains(fails, tmp_path, timeout):
    line = fails("sweep", "digits_ibp", "--out", tmp_path / "new", f"--timeout={timeout}")
    assert f"{timeout!r} is not a number of seconds > 0, e.g. 60" in line
    assert not (tmp_path / "new").exists()


def test_sweep_names_a_pattern_without_recipes(fails, tmp_path):
    assert "no recipe is called 'imagenet_*'" in fails("sweep", "digits_ibp", "imagenet_*", "--out", tmp_path)
    line = fails("sweep", "cifar10_linf_2_*", "--out", tmp_path)
    assert "no recipe is called 'cifar10_linf_2_*'; there are robustacc_cifar10_linf_2_coap, " in line


def test_sweep_trains_every_combination_of_values_and_passes_the_strength_of_attacks_on(succeeds, tmp_path, here):
    varied = ["--grid", "method.ratio=0.2,0.8", "--grid", "threat.eps=2/255,0.05"]
    command = ["sweep", "digits_sabr", "--out", tmp_path, "--samples", 5, "--stages", "fast", "--markdown"]
    command += ["--set", "method.attack.steps=1", "--set", "train_samples=100", *varied]
    for steps in (1, 3):
        out = succeeds(*command, "--attack-steps", steps)
    trials = [f"digits_sabr,method.ratio={ratio},threat.eps={eps}" for ratio in (0.2, 0.8) for eps in ("2_255", "0.05")]
    heading, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["run"] for row in table] == [trial for trial in trials for _ in range(2)]
    assert {(row["method.ratio"], row["eps"], row["attack"]) for row in table} == {
        (ratio, eps, attack)
        for ratio in ("0.2", "0.8")
        for eps in ("2/255", "0.05")
        for attack in ("1-steps", "3-steps")
    }
    assert all(row["samples"] == "5" for row in table)
    assert {path.name for path in tmp_path.iterdir()} >= set(trials)
    options = here[-1][here[-1].index("--attack-steps") :][:2]
    assert (here[-1][0], options) == ("certify", ["--attack-steps", "3"])
    assert jsonl.read_json(tmp_path / trials[0] / "recipe.json")["method"]["attack"]["steps"] == 1


def test_seeds_vary_last_and_have_a_table_of_means_that_a_dry_run_announces(succeeds, tmp_path, here):
    command = ["sweep", "digits_sabr", "--set", "train_samples=100", "--grid", "method.ratio=0.2,0.8", "--seeds", 2]
    command += ["--out", tmp_path / "out", "--samples", 5, "--stages", "fast"]
    names = [f"digits_sabr,method.ratio={ratio},seed={seed}" for ratio in (0.2, 0.8) for seed in (0, 1)]
    dry = succeeds(*command, "--dry-run")
    assert (here, (tmp_path / "out").exists()) == ([], False)
    assert [name in dry for name in names] == [True] * 4
    assert "4 runs: 4 new\nthe time left is unknown until one epoch has run" in dry
    out = succeeds(*command, "--markdown")
    heading, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    start = next(place for place, row in enumerate(rows) if row[0] == "method")
    assert [row[heading.index("run")] for row in rows[:start]] == names
    assert rows[start][:2] == ["method", "method.ratio"]
    groups = [dict(zip(rows[start], row, strict=True)) for row in rows[start + 2 :]]
    assert [(row["method"], row["method.ratio"], row["runs"]) for row in groups] == [
        ("sabr", "0.2", "2"),
        ("sabr", "0.8", "2"),
    ]
    assert [jsonl.read_json(tmp_path / "out" / name / "recipe.json")["seed"] for name in names] == [0, 1, 0, 1]
    dry = succeeds(*command, "--dry-run")
    assert dry.count("certified 5 of 5 samples") == 4
    assert "4 runs: 4 complete\nabout 0 s of work left" in dry


def test_a_dry_run_knows_the_pace_of_the_folder(succeeds, tmp_path, here):
    options = ["--out", tmp_path, "--samples", 5, "--stages", "fast"]
    succeeds("sweep", "digits_standard", "--seeds", 1, *options)
    done = len(here)
    out = succeeds("sweep", "digits_standard", "--seeds", 3, *options, "--dry-run")
    assert re.search(r"seed=2 +│ new +│ +[\d.]+ s ", out)
    assert "unknown" not in out
    assert "3 runs: 1 complete, 2 new" in out
    assert len(here) == done


def test_other_certifications_of_the_runs_are_not_in_the_means(succeeds, tmp_path, here):
    command = ["sweep", "digits_standard", "--grid", "seed=0,1", "--out", tmp_path, "--stages", "fast", "--markdown"]
    succeeds(*command, "--samples", 3)
    succeeds(*command, "--samples", 3, "--attack-steps", 1)
    succeeds("certify", tmp_path / "digits_standard,seed=1", "--eps", 0.01, "--samples", 2, "--stages", "fast")
    out = succeeds(*command, "--samples", 3)
    assert len([line for line in out.splitlines() if line.startswith("| digits_standard,")]) == 5
    assert [line.split("|")[1:8] for line in out.splitlines() if line.startswith("| standard")] == [
        [" standard ", " digits ", " cnn3 ", " linf ", " 0.1 ", " 2 ", " 3 "]
    ]


def test_an_interruption_says_that_the_same_command_continues(capsys, tmp_path, here, monkeypatch):
    def interrupted(_: object) -> Iterator[tuple[int, str]]:
        yield 0, ""
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "work", interrupted)
    assert main(["sweep", "digits_standard", "--out", str(tmp_path), "--quiet"]) == 130
    assert (
        capsys.readouterr().err == "ctbench: interrupted; finished results are kept, and the same command continues\n"
    )


def test_sweep_passes_a_module_and_data_of_your_own_on(succeeds, tmp_path, here):
    Path("own_of_the_sweep.py").write_text(
        "from ctbench.datasets import Data, Digits\nfrom ctbench.networks import MLP\n"
        "def network():\n    return MLP(hidden=(9,)).build((1, 8, 8), 10)\n"
        "def data():\n"
        "    digits = Digits().load()\n"
        "    return Data.of(train=digits.train[:256], test=digits.test[:7], classes=10)\n"
    )
    own = ["--model", "own_of_the_sweep.py:network", "--data-from", "own_of_the_sweep.py:data"]
    out = succeeds("sweep", "digits_ibp", "--out", tmp_path, *own, "--stages", "fast", "--markdown")
    assert [cell.strip() for cell in out.splitlines()[-1].split("|")[1:8]][-1] == "7"
    assert [command[0] for command in here] == ["train", "certify"]
    file = Path("own_of_the_sweep.py").absolute()  # workers may have another working folder
    passed_on = (("--model", f"{file}:network"), ("--data-from", f"{file}:data"), ("--device", "cpu"))
    assert all(command[command.index(name) + 1] == value for command in here for name, value in passed_on)


def test_sweep_takes_the_recipe_of_a_file(succeeds, fails, tmp_path, here):
    for name, ratio in (("mine", 0.3), ("other", 0.6)):
        changed = shortened("digits_sabr").with_changes([f"method.ratio={ratio}", "train_samples=100"])
        jsonl.write_json(Path(f"{name}.json"), replace(changed, name="mine").to_json())
    succeeds("sweep", "mine.json", "--grid", "seed=1,2", "--out", tmp_path / "out", "--samples", 3, "--stages", "fast")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine,seed=1", "mine,seed=2"]
    written = jsonl.read_json(tmp_path / "out" / "mine,seed=2" / "recipe.json")
    assert (written["method"]["ratio"], written["seed"]) == (0.3, 2)
    message = fails("sweep", "mine.json", "other.json", "--out", tmp_path / "new")
    assert "mine.json and other.json would both be trained in the folder mine" in message
    assert "no.json" in fails("sweep", "no.json", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_method_that_varies_after_its_field_does_not_undo_it():
    trial = sweep.Trial("digits_ibp", varied=("method.ratio=0.9", "method=sabr"))
    assert trial.changed().method.ratio == 0.9


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--grid", "method.ratio"], "write PATH=VALUE,VALUE,..."),
        (["--grid", "method.ratio="], "write PATH=VALUE,VALUE,..."),
        (["--grid", "method.ratio=0.1,0.1"], "0.1 is there twice, name each value once"),
        (["--grid", "epochs=1", "--grid", "epochs=2"], "epochs is named twice by --set, --grid or --seeds"),
        (["--grid", "epochs=1,2", "--set", "epochs=2"], "epochs is named twice by --set, --grid or --seeds"),
        (["--grid", "seed=1,2", "--seeds", "2"], "seed is named twice by --set, --grid or --seeds"),
        (["--set", "epochs=1", "--set", "epochs=2"], "epochs is given twice, by --set epochs=1 and by --set epochs=2"),
        (["--grid", "method.ration=0.1,0.2"], "has no field 'ration'"),
        (["--grid", "method.ratio=0.5,1/2"], "method.ratio=0.5 and digits_sabr,method.ratio=1_2 are the same run"),
        (["--grid", "method.ratio=0.1,nan"], "ratio"),
        (["--seeds", "0"], "--seeds: '0' is not a number of seeds, 1 or more, or a list such as 3,5,7"),
        (["--seeds", "-1"], "--seeds: '-1' is not a number of seeds"),
        (["--seeds", "1.5"], "--seeds: '1.5' is not a number of seeds"),
        (["--seeds", "3,"], "--seeds: '3,' is not a number of seeds"),
        (["--seeds", "3,5,3"], "--seeds: '3,5,3' has a seed twice"),
        (["--seeds", f"1,{2**63}"], "it must be below 2^63"),
        (["--set", "epochs=none"], "epochs"),
        (["--attack-steps", "0"], "'0' is not a whole number of 1 or more"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_sweep_refuses_changes_before_it_trains(fails, tmp_path, options, expected, dry):
    assert expected in fails("sweep", "digits_sabr", "--out", tmp_path / "new", *options, *dry)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, whatever its permissions say")
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_folder_that_takes_no_files_is_named_before_anything_is_trained(fails, dry):
    said = "no permission to read or write it: change the permissions, or choose another place"
    assert fails("sweep", "digits_ibp", "--out", "/proc/runs", *dry) == f"ctbench: error: /proc: {said}\n"


def test_no_table_is_shown_of_runs_that_all_failed(capsys, tmp_path, here):
    assert main(["sweep", "digits_ibp", *TINY, "--set", "optimizer.lr=1e30", "--out", str(tmp_path), "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "not all of the 1 runs could be trained" in said.err


def test_recipes_that_become_the_same_run_are_refused(fails, tmp_path):
    for name in ("one", "other"):
        jsonl.write_json(Path(f"{name}.json"), replace(recipe("digits_sabr"), name=name).to_json())
    message = fails("sweep", "one.json", "other.json", "--out", tmp_path / "new")
    assert "one and other are the same run: leave one of these values or recipes out" in message


def test_folders_that_hold_something_else_are_refused_before_anything_is_trained(fails, tmp_path, here):
    (tmp_path / "file").touch()
    message = fails("sweep", "digits_ibp", "--out", tmp_path / "file")
    assert "file: it is a file, but a folder is expected: choose another place" in message
    (tmp_path / "digits_standard").mkdir()
    (tmp_path / "digits_standard" / "notes.txt").touch()
    message = fails("sweep", "digits_ibp", "digits_standard", "--out", tmp_path)
    assert "digits_standard holds other files: choose an empty or a new folder" in message
    train(shortened("digits_ibp"), out=tmp_path / "digits_ibp", quiet=True)
    message = fails("sweep", "digits_sabr", "digits_ibp", "--set", "seed=3", "--out", tmp_path)
    assert "holds the run of another recipe (digits_ibp, " in message
    assert "; seed differs): choose another folder" in message
    assert here == []


def test_a_certification_under_other_settings_is_refused_before_anything_is_trained(succeeds, fails, tmp_path, here):
    options = ["--out", tmp_path, "--samples", 3]
    succeeds("sweep", "digits_standard", "--stages", "fast", *options)
    done = len(here)
    message = fails("sweep", "digits_standard", "digits_ibp", "--stages", "interval", *options)
    assert "linf-0.1.jsonl was made under other settings (stages was ['Bound(" in message
    message = fails("sweep", "digits_standard", "digits_ibp", "--stages", "fast", "--timeout", 2, *options)
    assert "timeout was 60.0, now 2.0" in message
    assert len(here) == done
    succeeds("sweep", "digits_standard", "--stages", "complete", *options)  # more stages


def test_values_are_cut_at_commas_outside_brackets():
    assert sweep.split("[1,2],3") == ["[1,2]", "3"]
    assert sweep.combinations(["a=1,2", "b=[3,4]"]) == [("a=1", "b=[3,4]"), ("a=2", "b=[3,4]")]
    assert sweep.combinations([]) == [()]


def test_seeds_are_a_number_of_them_or_a_list():
    assert seeds("3") == [0, 1, 2]
    assert seeds("7,3") == [7, 3]


def test_workers_find_files_from_any_folder(succeeds, here):
    own = ["--model", "tests.own_members:network", "--data-from", "nets/mine.py:data", "--data", "sets"]
    with pytest.raises(AssertionError):  # there are no such functions
        succeeds("sweep", "digits_ibp", "--out", "runs", *own)
    places = ["runs/digits_ibp", "runs/digits_ibp/certified/linf-0.1.jsonl"]
    for command, out in zip(here, places, strict=True):
        given = {option: command[command.index(option) + 1] for option in ("--model", "--data-from", "--data", "--out")}
        assert given == {
            "--model": "tests.own_members:network",
            "--data-from": str(Path.cwd() / "nets/mine.py:data"),
            "--data": str(Path.cwd() / "sets"),
            "--out": str(Path.cwd() / out),
        }
    assert sweep.found_anywhere("mine.py") == str(Path.cwd() / "mine.py")


def test_a_worker_tells_of_an_error_at_once(monkeypatch):
    monkeypatch.setattr("ctbench.cli.show.recipe", lambda name: 1 + name)
    assert list(sweep.work([["train", "digits_ibp"]])) == [
        (0, ""),
        (None, "TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
    ]


def test_a_worker_tells_of_an_argument_that_is_refused():
    begun, (place, error) = sweep.work([["train", "digits_ibp", "--device", "nonsense"]])
    assert begun == (0, "")
    assert place is None
    assert "there is no device 'nonsense'" in error


@pytest.mark.parametrize("command", ["sweep", "tune"])
def test_a_folder_of_images_that_workers_of_ray_would_not_find_is_refused(fails, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    options = ["--set", "dataset=folder", "--set", "dataset.path=pictures", "--out", tmp_path / "runs", "--on", "ray"]
    options += ["--dry-run"] if command == "sweep" else ["--space", "l1=0,1", "--trials", "1"]
    said = fails(command, "digits_ibp", *options, "--data", tmp_path / "data")
    assert f"give the absolute path, e.g. {tmp_path / 'pictures'}" in said
    assert not (tmp_path / "runs").exists()
