"""Each script in examples/ runs by itself, in an empty folder, and prints what it promises."""

import re
from pathlib import Path

import pytest
from tests import forked

ROOT = Path(__file__).parents[2]


def percentages(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", line)]


def train_and_certify(lines: list[str]) -> None:
    standard, ibp = (percentages(line) for line in lines[1:3])
    assert standard[0] > 90
    assert standard[2] == 0
    assert ibp[0] >= ibp[1] >= ibp[2] > 30
    assert lines[-1].startswith("closest call: image ")


def your_own_network(lines: list[str]) -> None:
    proved = {line.split()[0]: int(line.split()[-2]) for line in lines[:4]}
    assert proved["interval"] <= proved["crown-ibp"] <= proved["crown"]
    assert proved["crown"] > 50
    assert [line.split(":")[0] for line in lines[4:]] == ["linf 0.03", "l2 0.2"]
    assert all("certified" in line for line in lines[4:])


def your_own_method(lines: list[str]) -> None:
    assert [line.split()[0] for line in lines] == ["IBP()", "Hinge(threshold=2.0)"]
    assert all(natural > certified > 30 for natural, certified in map(percentages, lines))


def onnx_and_vnnlib(lines: list[str]) -> None:
    verdicts = [line.split()[2] for line in lines if line.startswith("eps")]
    assert verdicts[0] == "holds"
    assert verdicts[-1] == "violated"
    assert lines[-1].strip().startswith("there is an input")


CHECKS = {check.__name__: check for check in (train_and_certify, your_own_network, your_own_method, onnx_and_vnnlib)}


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_prints_what_it_promises(name, tmp_path):
    ran = forked.run(ROOT / "examples" / f"{name}.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    CHECKS[name](ran.stdout.splitlines())


def test_there_are_no_other_examples():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == CHECKS.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_fits_on_a_screen_and_has_a_tutorial_that_shows_it(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 50
    assert f"../../examples/{name}.py" in (ROOT / "docs" / "tutorials" / f"{name}.md").read_text()
