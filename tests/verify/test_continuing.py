"""A certification that is continued with more stages or more time, and one of a run."""

import pytest
import torch
from tests.small import inputs, small

from ctbench.datasets import Digits
from ctbench.networks import MLP
from ctbench.regions import Linf
from ctbench.results import CertificationFiles, SampleRecord, Verdict, jsonl
from ctbench.training import train
from ctbench.verify import Bound, BranchAndBound, Falsify, Records, certify

EPS = 0.12
FAST = (Bound(domain="interval"), Falsify(rounds=1))
THOROUGH = (*FAST, Bound(domain="crown"), BranchAndBound())


@pytest.fixture
def problem():
    model = small(0)
    return model, *inputs(model, 40)


def attempts(files: CertificationFiles) -> list[list[str]]:
    return [attempt["stages"] for attempt in files.attempts]


def test_only_unknown_samples_are_tried_again(problem, tmp_path):
    files, seen, kept = CertificationFiles(tmp_path / "linf.jsonl"), list[SampleRecord](), []
    first = certify(*problem, eps=EPS, stages=FAST, records=Records(files.records))
    unknown = {record.index for record in first if record.verdict is Verdict.UNKNOWN}
    assert 0 < len(unknown) < 40
    records = Records(files.records, resume=True, on_record=seen.append, on_start=kept.append)
    second = certify(*problem, eps=EPS, stages=THOROUGH, records=records)
    assert {record.index for record in seen} == unknown
    assert len(kept[0]) == 40 - len(unknown)
    assert second.counts[Verdict.UNKNOWN] < len(unknown)
    for before, after in zip(first, second, strict=True):
        if before.index not in unknown:
            assert after == before
        else:
            assert (before.attempt, after.attempt) == (0, 1)
            assert after.seconds > before.seconds
    assert files.read() == second
    assert attempts(files) == [[repr(stage) for stage in FAST], [repr(stage) for stage in THOROUGH]]
    assert [files.attempts[record.attempt]["stages"] for record in second if record.stage == "branch-and-bound"] == [
        [repr(stage) for stage in THOROUGH]
    ] * sum(record.stage == "branch-and-bound" for record in second)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_continuation_that_is_over_at_once_keeps_what_was_known(problem, tmp_path, in_memory):
    path = tmp_path / "linf.jsonl"
    first = certify(*problem, eps=EPS, stages=FAST, records=Records(path))
    again = Records(path, resume=True, in_memory=in_memory)
    second = certify(*problem, eps=EPS, stages=THOROUGH, total=1e-9, records=again)
    assert (second.natural_accuracy, second.adversarial_accuracy) == (
        first.natural_accuracy,
        first.adversarial_accuracy,
    )
    assert [record.prediction for record in second] == [record.prediction for record in first]
    open_ones = [record for record in second if record.verdict is Verdict.UNKNOWN]
    assert open_ones
    assert not any(record.finished for record in open_ones)


def test_a_continuation_that_is_killed_goes_on(problem, tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    first = certify(*problem, eps=EPS, stages=FAST, records=Records(files.records))
    unknown = sum(record.verdict is Verdict.UNKNOWN for record in first)

    def kill(record: SampleRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(*problem, eps=EPS, stages=THOROUGH, records=Records(files.records, resume=True, on_record=kill))
    between = files.read()
    assert len(between) == 40
    assert 0 < sum(record.attempt for record in between) <= unknown
    last = certify(*problem, eps=EPS, stages=THOROUGH, records=Records(files.records, resume=True))
    assert sum(record.attempt for record in last) == unknown
    assert len(files.attempts) == 2
    assert certify(*problem, eps=EPS, stages=THOROUGH, records=Records(files.records, resume=True)) == last


def test_a_longer_time_limit_tries_again_and_a_shorter_one_is_refused(problem, tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(*problem, eps=EPS, stages=FAST, timeout=10.0, records=Records(files.records))
    certify(*problem, eps=EPS, stages=FAST, timeout=20.0, records=Records(files.records, resume=True))
    assert [attempt["timeout"] for attempt in files.attempts] == [10.0, 20.0]
    before = files.records.read_bytes()
    with pytest.raises(ValueError, match=r"timeout was 20.0, now 15.0.*the same stages, or more, and no less time"):
        certify(*problem, eps=EPS, stages=FAST, timeout=15.0, records=Records(files.records, resume=True))
    assert files.records.read_bytes() == before


def test_nothing_is_kept_of_another_network_or_threat_or_precision(problem, tmp_path):
    model, x, y = problem
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(model, x, y, eps=EPS, stages=FAST, records=Records(files.records))
    other = small(0)
    with torch.no_grad():
        other[-1].bias[0] += 1e-3
    again = {"stages": THOROUGH, "records": Records(files.records, resume=True)}
    with pytest.raises(ValueError, match="network_digest"):
        certify(other, x, y, eps=EPS, **again)
    with pytest.raises(ValueError, match=r"eps was 0.12, now 0.13"):
        certify(model, x, y, eps=0.13, **again)
    with pytest.raises(ValueError, match="precision"):
        certify(small(0).double(), x.double(), y, eps=EPS, **again)
    moved = x.clone()
    first_unknown = next(record.index for record in files.read() if record.verdict is Verdict.UNKNOWN)
    moved[first_unknown] = moved[first_unknown].flip(-1)
    with pytest.raises(ValueError, match=f"the record of sample {first_unknown} is about another input"):
        certify(model, moved, y, eps=EPS, **again)


def test_a_run_is_certified_on_its_test_set_into_its_folder(tiny, tmp_path):
    run = train(tiny(network=MLP(hidden=(12,)), epochs=2), out=tmp_path / "run", quiet=True)
    x, y = Digits().load().test[:]
    result = certify(run, stages=FAST)
    threat = run.recipe.threat
    files = run.folder.certification(f"linf-{threat.eps:g}")
    assert len(result) == len(x)
    assert files.read() == result
    assert files.read_settings()["dataset"] == "digits"
    few = certify(run, x[:5], y[:5], Linf(0.01), stages=FAST)
    assert run.folder.certification("linf-0.01").read() == few
    elsewhere = Records(tmp_path / "other.jsonl")
    certify(run, x[:5], y[:5], eps=0.02, stages=FAST, records=elsewhere)
    assert not run.folder.certification("linf-0.02").records.exists()
    assert len(jsonl.read(tmp_path / "other.jsonl")) == 5


def test_what_is_no_model_and_no_run_is_refused(problem):
    model, x, y = problem
    with pytest.raises(ValueError, match=r"the model is a str: give a torch.nn.Module, or a run"):
        certify("runs/mine", x, y, eps=0.1)
    with pytest.raises(ValueError, match="x or y is missing"):
        certify(model, eps=0.1)
