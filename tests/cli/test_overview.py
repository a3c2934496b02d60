"""What sweep tells of its runs: from their files, as lines or as a table."""

from io import StringIO

import pytest
from rich.console import Console

from ctbench.cli.overview import Overview, Step, rounded_duration
from ctbench.results import CertificationFiles, jsonl


def overview(*, terminal: bool, runs: int = 2) -> tuple[Overview, StringIO]:
    text = StringIO()
    return Overview(runs, Console(file=text, width=100, force_terminal=terminal)), text


def epoch(number: int, **more: float) -> dict[str, float]:
    return {"epoch": number, "eps": 0.05, "natural_accuracy": 0.9, "robust_accuracy": 0.8, "seconds": 3.0} | more


def rows(shown: Overview) -> list[list[str]]:
    return [list(row) for row in zip(*(list(column.cells) for column in shown.table().columns), strict=True)]


def test_without_a_terminal_a_run_has_a_line_when_it_begins_and_when_it_ends(tmp_path):
    shown, text = overview(terminal=False, runs=3)
    with shown.shown():
        for title, unit in (("train", "epoch"), ("certify", "sample")):
            shown.begin(Step("a", title, unit, tmp_path / "records.jsonl", 4))
        shown.end("a")
        shown.end("b", "out of [luck]")
        shown.end("c", result="pruned")
    assert text.getvalue().splitlines() == [
        "a: begins",
        "a: complete after 0 s (0 at work, 2 waiting, 1 complete, 0 failed)",
        "b: failed: out of [luck] (0 at work, 1 waiting, 1 complete, 1 failed)",
        "c: pruned (0 at work, 0 waiting, 2 complete, 1 failed)",
    ]


def test_on_a_terminal_only_failures_have_lines_besides_the_table(tmp_path):
    shown, text = overview(terminal=True, runs=3)
    with shown.shown():
        shown.begin(Step("a", "train", "epoch", tmp_path / "metrics.jsonl", 4))
        shown.end("b", "out of luck")
        shown.end("c")
    said = text.getvalue()
    assert "b: failed: out of luck (1 at work, 1 waiting, 0 complete, 1 failed)" in said
    assert "train epoch 0 of 4" in said
    assert "1 at work, 0 waiting, 1 complete, 1 failed" in said
    assert "a: begins" not in said
    assert "c: complete" not in said


def test_nothing_is_shown_quietly(capsys):
    shown = Overview.of(1, quiet=True)
    with shown.shown():
        shown.end("a", "out of luck")
    assert capsys.readouterr() == ("", "")


def test_a_training_shows_its_last_epoch_and_the_time_of_the_others(tmp_path):
    shown, _ = overview(terminal=True)
    shown.begin(Step("[a]", "train", "epoch", tmp_path / "metrics.jsonl", 50))
    assert rows(shown) == [[r"\[a]", "train epoch 0 of 50", "-", "-", "-", "-"]]
    jsonl.append(tmp_path / "metrics.jsonl", [epoch(1, seconds=1.0), epoch(2, eps=2 / 255)])
    assert rows(shown) == [[r"\[a]", "train epoch 2 of 50", "2/255", "90.00", "80.00", "1.6 min"]]
    held_out = {"validation_natural_accuracy": 0.7, "validation_robust_accuracy": 0.25}
    jsonl.append(tmp_path / "metrics.jsonl", [epoch(3, **held_out)])
    assert rows(shown)[0][2:5] == ["0.05", "70.00", "25.00"]


def test_a_certification_shows_what_is_proved_so_far_and_counts_a_sample_once(tmp_path):
    files = CertificationFiles(tmp_path / "linf-0.1.jsonl")
    shown, _ = overview(terminal=True)
    shown.begin(Step("a", "certify", "sample", files.records, None))
    assert rows(shown) == [["a", "certify sample 0", "-", "-", "-", "-"]]
    files.start({"eps": 0.1, "samples": [10, 30]}, resume=False)
    record = {"label": 1, "prediction": 1, "seconds": 2.0}
    verdicts = ["unknown", "certified", "misclassified", "falsified"]
    several = [record | {"index": 10 + place, "verdict": verdict} for place, verdict in enumerate(verdicts)]
    several[2]["prediction"] = 0
    jsonl.append(files.records, [*several, several[0] | {"verdict": "certified"}])
    assert rows(shown) == [["a", "certify sample 4 of 20", "0.1", "75.00", "50.00", "32 s"]]


def test_a_file_that_cannot_be_read_is_told_in_its_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("nonsense\n")
    shown, _ = overview(terminal=True)
    shown.begin(Step("a", "train", "epoch", tmp_path / "metrics.jsonl", 4))
    assert rows(shown)[0][1].startswith("train: Expecting value")


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_durations_in_words(seconds, text):
    assert rounded_duration(seconds) == text
