"""`ctbench sweep`: several recipes, trained, certified and compared, whatever fails."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.short import shortened

from ctbench.cli import demo, main, sweep
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
    for strict in (True, False):
        options = ["--strict"] if strict else []
        assert main(["sweep", "digits_ibp", "--out", str(tmp_path / "sweep"), *options]) == 2 * strict
        said = capsys.readouterr()
        assert re.search(r"digits_ibp +│ interval +│", said.err)


def test_sweep_goes_on_after_a_failure_and_tells_of_it(capsys, tmp_path):
    """In processes of their own, one of which finds a complete run of its recipe."""
    whole = recipe("digits_ibp")
    train(replace(shortened(whole.name), network=whole.network), out=tmp_path / whole.name, quiet=True)
    jsonl.write_json(tmp_path / whole.name / "recipe.json", whole.to_json())
    (tmp_path / "digits_standard").mkdir()
    (tmp_path / "digits_standard" / "notes.txt").touch()
    assert (
        main(["sweep", "digits_standard", "digits_ibp", "--out", str(tmp_path), "--samples", "5", "--stages", "fast"])
        == 2
    )
    said = capsys.readouterr()
    assert "digits_ibp" in said.out
    assert "digits_standard" not in said.out
    assert "not all of the 2 recipes could be trained and certified. digits_standard: ctbench: error:" in said.err
    assert "holds other files" in said.err


@pytest.mark.parametrize("timeout", ["0", "-3", "none"])
def test_sweep_refuses_a_timeout_before_it_trains(fails, tmp_path, timeout):
    line = fails("sweep", "digits_ibp", "--out", tmp_path / "new", f"--timeout={timeout}")
    assert f"{timeout!r} is not a number of seconds > 0, e.g. 60" in line
    assert not (tmp_path / "new").exists()


def test_sweep_names_a_pattern_without_recipes(fails, tmp_path):
    assert "no recipe is called 'imagenet_*'" in fails("sweep", "digits_ibp", "imagenet_*", "--out", tmp_path)
    line = fails("sweep", "cifar10_linf_2_*", "--out", tmp_path)
    assert "no recipe is called 'cifar10_linf_2_*'; there are robustacc_cifar10_linf_2_coap, " in line
