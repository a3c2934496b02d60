"""The command that compares certifications of the same samples."""

import json
from pathlib import Path

from tests.results.test_agreement import write

from ctbench.cli.agree import names


def test_agree_shows_counts_correlations_and_hard_samples(succeeds, tmp_path):
    write(tmp_path / "a", "yynn")
    write(tmp_path / "a", "yyyy", name="linf-0.2", eps=0.2)
    other = write(tmp_path / "b", "ynny")
    out = succeeds("agree", tmp_path / "a", other.records, "--eps", "1/10", "--difficulty", "hard.json")
    assert "1 of 4 samples are certified by none: 2\n" in out
    assert "how many certify a sample" in out
    assert "phi coefficients" in out
    assert out.endswith("hard.json\n")
    assert json.loads(Path("hard.json").read_text())[0] == {"index": 2, "label": 1, "certified": 0, "difficulty": 1.0}
    table = succeeds("agree", tmp_path / "a", tmp_path / "b", "--eps", 0.1, "--markdown")
    assert "| 1 | 2 | 2 |" in table
    assert "| a | 50.00 | 1.000 | 0.000 |" in table
    assert succeeds("agree", tmp_path / "a", tmp_path / "b", "--eps", 0.1, "--csv").startswith(
        "certified by,samples observed,samples expected\n0,1,1.0\n"
    )


def test_names_tell_certifications_apart(succeeds, tmp_path):
    files = [write(tmp_path / run, "yn").records for run in ("a", "b", "deep/a")]
    assert names([tmp_path / "a", files[1], Path("part-1.jsonl")]) == ["a", "b/linf-0.1", "part-1"]
    assert names([files[0], files[2]]) == [str(files[0]), str(files[2])]
    assert "b/linf-0.1" in succeeds("agree", *files[:2])


def test_agree_says_in_one_line_why_it_cannot(fails, tmp_path):
    write(tmp_path / "a", "yynn")
    write(tmp_path / "b", "yynn", dataset="mnist")
    assert "has dataset 'digits' and" in fails("agree", tmp_path / "a", tmp_path / "b")
    assert "there are 1 certifications" in fails("agree", tmp_path / "a")
    same = (tmp_path / "a", tmp_path / "a" / "certified" / "linf-0.1.jsonl")
    assert "linf-0.1.jsonl is given twice" in fails("agree", *same)
    assert "there is no run folder" in fails("agree", tmp_path / "a", tmp_path / "none")
    assert "neither a .csv nor a .json" in fails(
        "agree", tmp_path / "a", write(tmp_path / "c", "yyyy").records, "--difficulty", "hard.txt"
    )
