"""Certification as a job: what is written, resumed and shared among parts, and how time is kept."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from tests.small import inputs, right, small, timeless
from tests.stages import BOUNDS, Custom, Proving, constant, taking

from ctbench.regions import Linf
from ctbench.results import Certification, CertificationFiles, Open, SampleRecord, StageFailedWarning, Verdict, jsonl
from ctbench.training import train
from ctbench.verify import (
    DEFAULT_STAGES,
    Bound,
    Findings,
    Problem,
    Records,
    certify,
)

# ------------------------------------------------------------------------------------------------------- interruptions


class Killed(BaseException):
    """Stands for what no code can catch."""


def killer(after: int) -> Callable[[SampleRecord], None]:
    seen: list[SampleRecord] = []

    def watch(record: SampleRecord) -> None:
        seen.append(record)
        if len(seen) == after:
            raise Killed

    return watch


def indices(files: CertificationFiles) -> list[int]:
    return [record["index"] for record in jsonl.read(files.records)]


def same(found: Certification, expected: Certification) -> bool:
    """Whether records say the same, except for what rounding does to bounds where other samples are in a batch."""
    assert [record.bound for record in found] == pytest.approx([record.bound for record in expected], abs=1e-5)
    return [replace(r, bound=None) for r in timeless(found)] == [replace(r, bound=None) for r in timeless(expected)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("after", [1, 16, 30])
@pytest.mark.parametrize("torn", [0, 1, 40, 400])
def test_an_interrupted_certification_ends_in_the_same_records(digits, tmp_path, after, torn):
    model, x, y = digits
    whole = certify(model, x, y, eps=0.05)
    files = CertificationFiles(tmp_path / "linf.jsonl")
    with pytest.raises(Killed):
        certify(model, x, y, eps=0.05, records=Records(files.records, on_record=killer(after)))
    kept = files.records.read_bytes()
    assert after <= len(indices(files)) <= 16 * math.ceil(after / 16)
    files.records.write_bytes(kept[: len(kept) - torn])
    before = indices(files)
    watched: list[int] = []
    records = Records(files.records, resume=True, on_record=lambda record: watched.append(record.index))
    resumed = certify(model, x, y, eps=0.05, records=records)
    assert same(resumed, whole)
    assert sorted(indices(files)) == list(range(len(y)))
    assert sorted(before + watched) == list(range(len(y)))
    assert same(files.read(), whole)


VICTIM = """
import sys, time
import torch
torch.set_num_threads(1)
from ctbench.training import load_network
import ctbench.verify
from pathlib import Path

sys.modules["ctbench.verify.job"].CHUNK = 16
seen = []

def watch(record):
    seen.append(record)
    if len(seen) == 40:
        print("in the middle", flush=True)
        time.sleep(600)

weights, data, out = map(Path, sys.argv[1:])
x, y = torch.load(data, weights_only=True)
ctbench.verify.certify(load_network(weights), x, y, eps=0.05, records=ctbench.verify.Records(out, on_record=watch))
"""


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("small_chunks")
def test_a_killed_certification_ends_in_the_same_records(tiny, tmp_path):
    run = train(tiny(epochs=2), out=tmp_path / "run", quiet=True)
    x, y = run.recipe.dataset.load().test[:100]
    torch.save((x, y), tmp_path / "data.pt")
    files = CertificationFiles(tmp_path / "linf.jsonl")
    arguments = [str(run.folder.weights), str(tmp_path / "data.pt"), str(files.records)]
    with subprocess.Popen([sys.executable, "-c", VICTIM, *arguments], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "in the middle\n"
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
    assert 40 <= len(indices(files)) <= 48
    resumed = certify(run.model, x, y, eps=0.05, records=Records(files.records, resume=True))
    assert sorted(indices(files)) == list(range(100))
    assert same(resumed, certify(run.model, x, y, eps=0.05))


def test_a_finished_certification_is_read_and_not_repeated(digits, tmp_path):
    model, x, y = digits
    files = CertificationFiles(tmp_path / "linf.jsonl")
    first = certify(model, x[:30], y[:30], eps=0.05, records=Records(files.records))
    kept = files.records.read_bytes()
    again = certify(model, x[:30], y[:30], eps=0.05, records=Records(files.records, resume=True, on_record=killer(1)))
    assert again == first
    assert files.records.read_bytes() == kept
    assert files.read() == first


def test_more_samples_can_be_added(digits, tmp_path):
    model, x, y = digits
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(model, x[:30], y[:30], eps=0.05, records=Records(files.records))
    found = certify(model, x[:50], y[:50], eps=0.05, records=Records(files.records, resume=True))
    assert [record.index for record in found] == list(range(50))
    assert sorted(indices(files)) == list(range(50))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"threat": Linf(0.06)},
            r"eps was 0.05, now 0.06; threat was 'Linf\(eps=0.05, clip=\(0.0, 1.0\)\)', now 'Linf\(eps=0.06",
        ),
        ({"threat": Linf(0.05, clip=(-1.0, 1.0))}, r"threat was .*now 'Linf\(eps=0.05, clip=\(-1.0, 1.0\)\)'"),
        ({"seed": 1}, r"seed was 0, now 1"),
        ({"timeout": 5.0}, r"timeout was 60.0, now 5.0"),
        ({"stages": BOUNDS}, r"stages was \[.*PGD.*\], now \["),
        ({"about": {"weights": "b"}}, r"weights was 'a', now 'b'"),
        ({"about": {}}, r"weights was 'a', now None"),
        ({"seed": 1, "timeout": 5.0}, r"seed was 0, now 1; timeout was 60.0, now 5.0"),
    ],
    ids=["eps", "clip", "seed", "timeout", "stages", "weights", "no weights", "two"],
)
def test_records_of_other_settings_are_not_mixed(digits, tmp_path, changes, told):
    model, x, y = (digits[0], digits[1][:5], digits[2][:5])
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(model, x, y, eps=0.05, records=Records(files.records, about={"weights": "a"}))
    kept = files.records.read_bytes()
    arguments = {"threat": Linf(0.05), "about": {"weights": "a"}} | changes
    records = Records(files.records, resume=True, about=arguments.pop("about"))
    with pytest.raises(ValueError, match=rf"made under other settings \({told}.*: choose another place"):
        certify(model, x, y, records=records, **arguments)
    assert files.records.read_bytes() == kept


def test_records_of_another_precision_or_without_replays_are_not_mixed(digits, tmp_path):
    model, x, y = copy.deepcopy(digits[0]), digits[1][:5], digits[2][:5]
    records = Records(tmp_path / "linf.jsonl")
    certify(model, x, y, eps=0.05, records=records)
    resuming = Records(records.path, resume=True)
    with pytest.raises(ValueError, match="replayed was False, now True"):
        certify(model, x, y, eps=0.05, replay=model, records=resuming)
    with pytest.raises(ValueError, match=r"precision was 'torch\.float32', now 'torch\.float64'"):
        certify(model.double(), x, y, eps=0.05, records=resuming)


def test_records_that_are_there_are_not_overwritten(digits, tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(digits[0], digits[1][:5], digits[2][:5], eps=0.05, records=Records(files.records))
    kept = files.records.read_bytes()
    with pytest.raises(ValueError, match=r"exists already: resume it \(--resume\), or choose another place"):
        certify(digits[0], digits[1][:5], digits[2][:5], eps=0.05, records=Records(files.records))
    assert files.records.read_bytes() == kept


def test_settings_say_what_the_records_depend_on(digits, tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    certify(digits[0], digits[1][:5], digits[2][:5], eps=0.05, records=Records(files.records, about={"weights": "abc"}))
    settings = json.loads(files.settings.read_text())
    assert settings["threat"] == "Linf(eps=0.05, clip=(0.0, 1.0))"
    assert settings["stages"] == [repr(stage) for stage in DEFAULT_STAGES]
    assert (settings["rounding"], settings["seed"], settings["weights"]) == ("outward", 0, "abc")
    assert settings["timeout"] == 60.0


# ---------------------------------------------------------------------------------------------- what records are about


def test_records_of_another_network_are_not_taken_over(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    x, y = inputs(small(0), 6)
    certify(small(0), x, y, eps=0.01, records=Records(files.records))
    other = small(0)
    with torch.no_grad():
        other[-1].bias[0] += 1e-3
    with pytest.raises(ValueError, match=r"was made under other settings .*network_digest"):
        certify(other, x, y, eps=0.01, records=Records(files.records, resume=True))


def test_records_of_other_inputs_or_labels_are_not_taken_over(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    model = small(0)
    x, y = inputs(model, 6)
    before = certify(model, x[:4], y[:4], eps=0.01, records=Records(files.records))
    moved = x.clone()
    moved[2] = moved[2].flip(-1)
    with pytest.raises(ValueError, match="the record of sample 2 is about another input or label"):
        certify(model, moved, y, eps=0.01, records=Records(files.records, resume=True))
    relabelled = y.clone()
    relabelled[1] = (y[1] + 1) % 3
    with pytest.raises(ValueError, match="the record of sample 1 is about another input or label"):
        certify(model, x, relabelled, eps=0.01, records=Records(files.records, resume=True))
    after = certify(
        model, x, y, eps=0.01, records=Records(files.records, resume=True)
    )  # more samples of the same are welcome
    assert list(after)[:4] == list(before)
    assert len(after) == 6


def test_what_is_said_about_records_cannot_hide_what_they_depend_on(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    model = small(0)
    x, y = inputs(model, 3)
    about = {"threat": "any", "seed": 0, "shape": (1, 2)}
    certify(model, x, y, eps=0.01, records=Records(files.records, about=about))
    assert len(certify(model, x, y, eps=0.01, records=Records(files.records, about=about, resume=True))) == 3
    with pytest.raises(ValueError, match="threat was"):
        certify(model, x, y, eps=0.5, records=Records(files.records, about=about, resume=True))
    with pytest.raises(ValueError, match="seed is 4294967296"):
        certify(model, x, y, eps=0.01, seed=2**32)


# ---------------------------------------------------------------------------------------------------------------- time


@pytest.mark.usefixtures("small_chunks")
def test_what_is_not_reached_in_time_is_unknown_and_left_for_later(clock, tmp_path):
    model = small(0)
    x, y = right(model, 40)
    files = CertificationFiles(tmp_path / "linf.jsonl")
    watched: list[int] = []

    def job(*, total: float | None = None, resume: bool = False) -> Certification:
        records = Records(files.records, resume=resume, on_record=lambda record: watched.append(record.index))
        stages = [Proving(look=taking(clock, 1.0))]
        return certify(model, x, y, eps=0.01, stages=stages, total=total, records=records)

    found = job(total=20.0)  # chunks of 16: one that ends in time, one that does not, one that never begins
    assert [r.index for r in found if r.finished] == list(range(32)) == sorted(indices(files)) == sorted(watched)
    assert {(r.verdict, r.prediction, r.reason) for r in list(found)[32:]} == {
        (Verdict.UNKNOWN, -1, "the time of the whole job was over")
    }
    assert job(resume=True).certified_accuracy == 1
    assert sorted(indices(files)) == list(range(40)) == sorted(watched)


@pytest.mark.parametrize(("total", "cut"), [(4.0, True), (40.0, False)])
def test_what_the_end_of_a_job_cut_short_is_left_for_later(clock, tmp_path, total, cut):
    model = small(0)
    x, y = right(model, 10)
    files = CertificationFiles(tmp_path / "linf.jsonl")

    def first(problem: Problem) -> Findings:
        """Certifies half of the samples."""
        clock[0] += 1.0
        return Findings(bound=torch.where(x[:, 0] > x[:, 0].median(), 1.0, -1.0))

    def second(problem: Problem) -> Findings:
        """Has too little time for one of the samples, 1 second or 1.4."""
        clock[0] += 1.0
        assert problem.budget.left.tolist() == pytest.approx([1.0 if cut else 1.4] * len(problem))
        return Findings(late=torch.arange(len(problem)) == 1)

    stages = [Proving(look=first), Proving(look=second, batch_size=3)]
    found = certify(model, x, y, eps=0.01, stages=stages, timeout=1.5, total=total, records=Records(files.records))
    standing = [record for record in found if record.verdict is Verdict.UNKNOWN]
    reason = "the time of the whole job was over" if cut else "1.5 seconds were not enough"
    assert [record.finished for record in standing] == [True, not cut, True, True, not cut]
    ended = "all stages have ended without a proof or a counterexample"
    assert [record.reason for record in standing] == [ended, reason, ended, ended, reason]
    assert sorted(indices(files)) == [record.index for record in found if record.finished]
    assert len(indices(files)) == (8 if cut else 10)


def test_a_stage_that_the_end_of_a_job_cut_short_is_not_forgotten_by_the_next_one(clock):
    """The second stage ends in its time, but the first one could have told more."""
    model = small(0)
    stages = [
        Custom(look=lambda problem: Findings(late=torch.ones(len(problem), dtype=torch.bool)), called="cut short"),
        Custom(look=lambda problem: Findings(), called="whole"),
    ]
    found = certify(model, *right(model, 4), eps=0.01, stages=stages, total=20.0)
    assert {(record.finished, record.reason) for record in found} == {(False, "the time of the whole job was over")}
    found = certify(model, *right(model, 4), eps=0.01, stages=stages, timeout=1.0, total=20.0)
    assert {(record.finished, record.open) for record in found} == {(True, Open.TIME)}


def test_a_failure_is_told_of_even_where_the_job_ends(clock):
    model = small(0)

    def raising(problem: Problem) -> Findings:
        clock[0] += 30.0
        raise RuntimeError("out of luck")

    stages = [Custom(look=raising, called="a"), Custom(look=constant(1.0), called="b")]
    with pytest.warns(StageFailedWarning, match="a on 4 samples"):
        found = certify(model, *right(model, 4), eps=0.01, stages=stages, total=20.0)
    assert {record.open for record in found} == {Open.JOB_OVER}


def test_failures_are_kept_in_the_records_and_warned_of_again_by_who_resumes(tmp_path):
    model = small(0)
    x, y = right(model, 4)
    files = CertificationFiles(tmp_path / "linf.jsonl")
    stages = [Custom(look=constant(math.nan))]
    with pytest.warns(StageFailedWarning, match=r"custom on 4 samples \(the bound is NaN\)"):
        found = certify(model, x, y, eps=0.01, stages=stages, records=Records(files.records))
    assert files.read() == found
    assert found.outcomes["unknown (error)"] == 4
    with pytest.warns(StageFailedWarning, match="custom on 4 samples"):
        assert certify(model, x, y, eps=0.01, stages=stages, records=Records(files.records, resume=True)) == found


def test_a_label_that_was_edited_in_a_record_is_found(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    model = small(0)
    x, y = right(model, 4)
    certify(model, x, y, eps=0.01, records=Records(files.records))
    records = [replace(record, label=7, prediction=7) if record.index == 2 else record for record in files.read()]
    jsonl.rewrite(files.records, [])
    files.append(records)
    with pytest.raises(ValueError, match="the record of sample 2 is about another input or label"):
        certify(model, x, y, eps=0.01, records=Records(files.records, resume=True))


def test_no_stage_begins_after_the_end_of_the_job(clock):
    model = small(0)
    stages = [Custom(look=taking(clock, 1.0, None), batch_size=2), Custom(look=lambda problem: pytest.fail("late"))]
    found = certify(model, *right(model, 4), eps=0.01, stages=stages, total=1.5)
    assert [record.seconds for record in found] == [1.0, 1.0, 0.0, 0.0]
    assert {(record.finished, record.reason) for record in found} == {(False, "the time of the whole job was over")}


def test_stages_know_how_much_time_samples_have_left(clock):
    model = small(0)
    x, y = right(model, 4)
    given: list[list[float]] = []

    def look(problem: Problem) -> Findings:
        given.append(problem.budget.left.tolist())
        return taking(clock, 1.0, None)(problem)

    stages = [Custom(look=look, called=name) for name in "ab"]
    certify(model, x, y, eps=0.01, stages=stages, timeout=3.0)
    certify(model, x, y, eps=0.01, stages=stages, timeout=3.0, total=10.0)
    certify(model, x, y, eps=0.01, stages=stages, timeout=None, total=10.0)
    assert given == [[3.0] * 4, [2.0] * 4] + [[2.5] * 4, [1.5] * 4] * 2


def test_time_that_runs_out_is_the_reason(clock):
    model = small(0)
    x, y = right(model, 4)
    stages = [Custom(look=taking(clock, 1.0, None), called=name) for name in "abc"]
    for record in certify(model, x, y, eps=0.01, stages=stages, timeout=2.0):
        assert (record.verdict, record.stage, record.finished) == (Verdict.UNKNOWN, "b", True)
        assert record.reason == "2 seconds were not enough"
        assert record.stage_seconds == {"clean": 0.0, "a": 1.0, "b": 1.0}
        assert record.seconds == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timeout": 0.0}, "timeout is 0.0: give a number of seconds > 0"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": math.inf}, "timeout is inf"),
        ({"timeout": "60"}, "timeout is '60': give a number of seconds > 0"),
        ({"total": "60"}, "total is '60': give a number of seconds > 0"),
        ({"eps": "0.1"}, "eps is '0.1': a radius must be a number >= 0"),
        ({"eps": [0.1, 0.1]}, r"eps has the shape \[2\] but one input has \[4\]"),
        ({"workers": "2"}, "workers is '2': give a whole number of processes, 1 or more"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"seed": "a"}, "seed is 'a': it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number"),
        ({"model": "net"}, "the model is a str: give a torch.nn.Module"),
        ({"total": 0.0}, "total is 0.0: give a number of seconds > 0"),
        ({"total": math.nan}, "total is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"eps": None}, "given is neither a threat model nor eps"),
        ({"threat": Linf(0.1)}, "given is the threat model Linf"),
    ],
)
def test_jobs_that_cannot_be_are_refused(tmp_path, changes, message):
    model, records = small(0), Records(tmp_path / "a.jsonl")
    x, y = inputs(model, 3)
    with pytest.raises(ValueError, match=message):
        certify(**({"model": model, "x": x, "y": y, "eps": 0.1, "records": records} | changes))
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.usefixtures("small_chunks")
def test_parts_of_a_data_set_make_the_records_of_the_whole(digits, tmp_path):
    model, x, y = digits
    parts = [CertificationFiles(tmp_path / f"{start}.jsonl") for start in (0, 32, 96)]
    for files, start, stop in zip(parts, (0, 32, 96), (32, 96, 150), strict=True):
        found = certify(model, x[start:stop], y[start:stop], eps=0.05, records=Records(files.records, first=start))
        assert [record.index for record in found] == list(range(start, stop))
    merged = CertificationFiles(tmp_path / "all.jsonl")
    assert timeless(merged.merge(parts)) == timeless(certify(model, x, y, eps=0.05))
    again = certify(model, x, y, eps=0.05, records=Records(merged.records, resume=True, on_record=killer(1)))
    assert again == merged.read()
    with pytest.raises(ValueError, match="the record of sample 33 is about another input or label"):
        certify(model, x[32:96].flip(-1), y[32:96], eps=0.05, records=Records(parts[1].records, first=33, resume=True))


def test_records_are_written_as_soon_as_they_are_known(digits, tmp_path):
    model, x, y = digits
    files = CertificationFiles(tmp_path / "linf.jsonl")
    known: list[int] = []

    def look(problem: Problem) -> Findings:
        known.append(len(indices(files)))
        return Findings()

    spies = [Custom(look=look, called=name) for name in "ab"]
    found = certify(
        model, x, y, eps=0.05, stages=[spies[0], Bound(domain="interval"), spies[1]], records=Records(files.records)
    )
    wrong, certified = sum(not record.right for record in found), found.counts[Verdict.CERTIFIED]
    assert known == [wrong, wrong + certified]
    assert certified > 0


def test_a_stage_that_shows_an_address_makes_no_records(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Shown(Custom):
        look: Callable[[Problem], Findings]

    model = small(0)
    x, y = right(model, 2)
    stages = [Shown(look=constant(1.0))]
    assert certify(model, x, y, eps=0.01, stages=stages).certified_accuracy == 1
    with pytest.raises(ValueError, match=r"the stage 'custom' shows an address.*give its class a __repr__"):
        certify(model, x, y, eps=0.01, stages=stages, records=Records(tmp_path / "linf.jsonl"))
