"""What sweep tells of its runs: from their files, as lines or as bars."""

from io import StringIO

import pytest
from rich.console import Console

from ctbench.cli import overview
from ctbench.cli.overview import Overview, Step
from ctbench.results import CertificationFiles, jsonl


@pytest.fixture
def told(monkeypatch) -> tuple[Overview, StringIO]:
    text = StringIO()
    shown = Overview.of(2, quiet=False)
    monkeypatch.setattr(overview, "EVERY", 0.0)
    object.__setattr__(shown, "console", Console(file=text, width=80))
    return shown, text


def test_each_step_has_lines_with_the_time_left(told, tmp_path):
    shown, text = told
    records = tmp_path / "metrics.jsonl"
    with shown.shown():
        shown.begin(Step("a", "train", "epoch", records, 4))
        jsonl.append(records, [{"epoch": 1}, {"epoch": 2}])
        shown.look()
        shown.end("a")
        shown.end("b", "out of luck")
    lines = text.getvalue().splitlines()
    assert lines[0] == "a: train"
    assert lines[1].startswith("a: train, epoch 2 of 4, about ")
    assert lines[1].endswith(" left")
    assert lines[2:] == ["a: finished (1 of 2 runs)", "b: failed: out of luck (2 of 2 runs)"]


def test_the_number_of_samples_is_that_of_the_settings(tmp_path):
    files = CertificationFiles(tmp_path / "linf-0.1.jsonl")
    step = Step("a", "certify", "sample", files.records, None)
    assert step.standing() == (0, None)
    files.start({"eps": 0.1, "samples": [10, 30]}, resume=False)
    assert step.standing() == (0, 20)
