"""Records that contradict themselves are refused by every reader, with all their faults."""

import json
import re
from pathlib import Path

import pytest

from ctbench import report
from ctbench.results import CertificationFiles, Open, RunFolder, SampleRecord, Verdict, jsonl
from ctbench.results.checking import check, check_instance, checksum

CERTIFIED = SampleRecord(
    index=4, label=1, prediction=1, verdict=Verdict.CERTIFIED, stage="crown", bound=0.5, seconds=1.5,
    stage_seconds={"clean": 0.5, "crown": 1.0}, digest="abc",
).to_json()  # fmt: skip
FALSIFIED = {**CERTIFIED, "verdict": "falsified", "stage": "pgd", "bound": None}
UNKNOWN = {**CERTIFIED, "verdict": "unknown", "bound": -0.5, "open": "not decided", "reason": "all stages ended"}
MISCLASSIFIED = {**CERTIFIED, "verdict": "misclassified", "stage": "clean", "bound": None, "prediction": 0}
FAILED = {**UNKNOWN, "open": "error", "failed": {"pgd": "RuntimeError: no"}, "reason": "pgd: RuntimeError: no"}
LATE = {**UNKNOWN, "open": "time", "reason": "60 seconds were not enough"}


@pytest.mark.parametrize("good", [CERTIFIED, FALSIFIED, UNKNOWN, MISCLASSIFIED, FAILED, LATE])
def test_records_that_can_be_are_read(good):
    check(good)
    assert SampleRecord.from_json(good).to_json() == good
    check({**good, "checksum": checksum(good)})


@pytest.mark.parametrize(
    ("good", "change", "said"),
    [
        (CERTIFIED, {"bound": -5}, "its bound is -5, but certified needs a bound > 0"),
        (CERTIFIED, {"bound": 0.0}, "its bound is 0.0, but certified needs a bound > 0"),
        (CERTIFIED, {"bound": None}, "its bound is None, but certified needs a bound > 0"),
        (CERTIFIED, {"bound": float("nan")}, "its bound is nan, expected a finite number or null"),
        (CERTIFIED, {"bound": float("inf")}, "its bound is inf, expected a finite number or null"),
        (CERTIFIED, {"bound": "0.5"}, "its bound is '0.5', expected a finite number or null"),
        (CERTIFIED, {"bound": True}, "its bound is True, expected a finite number or null"),
        (CERTIFIED, {"prediction": 0}, "its prediction is 0, but certified needs the label, 1"),
        (CERTIFIED, {"stage": "clean"}, "its stage is 'clean', but certified needs a stage that bounds margins"),
        (CERTIFIED, {"reason": "odd"}, "its reason is 'odd', but certified needs no reason"),
        (CERTIFIED, {"late": True}, "its late is True, but certified needs false"),
        (FALSIFIED, {"bound": 0.25}, "its bound is 0.25, but falsified needs null or a bound <= 0"),
        (FALSIFIED, {"prediction": -1}, "its prediction is -1, but falsified needs the label, 1"),
        (FALSIFIED, {"stage": "clean"}, "its stage is 'clean', but falsified needs a stage that finds counterexamples"),
        (MISCLASSIFIED, {"prediction": 1}, "its prediction is 1, but misclassified needs a class other than the label"),
        (MISCLASSIFIED, {"prediction": -1}, "its prediction is -1, but misclassified needs a class other"),
        (MISCLASSIFIED, {"stage": "pgd"}, "its stage is 'pgd', but misclassified needs 'clean'"),
        (MISCLASSIFIED, {"bound": 1}, "its bound is 1, but misclassified needs null or a bound <= 0"),
        (UNKNOWN, {"prediction": 0}, "its prediction is 0, but unknown needs the label, 1, or -1"),
        (CERTIFIED, {"open": "time"}, "its open is 'time', but certified needs null"),
        (UNKNOWN, {"open": None}, "its open is None, but unknown needs a reason"),
        (FAILED, {"open": "time"}, "its open is 'time', but unknown needs 'error'"),
        (FAILED, {"reason": ""}, "its reason is '', but unknown needs one in words"),
        (LATE, {"reason": ""}, "its reason is '', but unknown needs one in words"),
        (FAILED, {"failed": {"pgd": ""}}, "its failed is {'pgd': ''}, expected a message by stage"),
        (FAILED, {"failed": "pgd"}, "its failed is 'pgd', expected a message by stage"),
        (
            CERTIFIED,
            {"verdict": "Certified"},
            "its verdict is 'Certified', expected certified, falsified, unknown, misc",
        ),
        (CERTIFIED, {"index": -1}, "its index is -1, expected a whole number >= 0"),
        (CERTIFIED, {"index": "4"}, "its index is '4', expected a whole number >= 0"),
        (CERTIFIED, {"index": 4.0}, "its index is 4.0, expected a whole number >= 0"),
        (
            CERTIFIED,
            {"label": True, "prediction": True},
            "its label is True, expected a whole number >= 0; its predict",
        ),
        (CERTIFIED, {"seconds": -1.5}, "its seconds is -1.5, expected a number of seconds >= 0"),
        (CERTIFIED, {"seconds": 7.0}, "its stage_seconds sum to 1.5, its seconds are 7.0"),
        (CERTIFIED, {"stage_seconds": [1.5]}, "its stage_seconds is [1.5], expected seconds >= 0 by stage"),
        (CERTIFIED, {"stage": ""}, "its stage is '', expected a text, not empty"),
        (CERTIFIED, {"digest": None}, "its digest is None, expected a text"),
        (LATE, {"late": 1}, "its late is 1, expected true or false"),
        (LATE, {"open": "soon"}, "its open is 'soon', expected job over, error, time, not decided or null"),
    ],
)
def test_contradictions_are_named(good, change, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        SampleRecord.from_json(good | change)
    assert str(error.value).startswith("not the record of a certified sample (")
    assert str(error.value).endswith("): remove this line, and certify the sample again with --resume")


def test_records_from_before_failures_had_a_field_are_read():
    def old(reason: str, **changes: object) -> SampleRecord:
        content = {**UNKNOWN, "reason": reason, **changes}
        return SampleRecord.from_json({name: content[name] for name in content if name not in ("failed", "open")})

    assert old("").open is Open.UNDECIDED
    assert old("60 seconds were not enough").open is Open.TIME
    failed = old("crown: RuntimeError: 60 seconds were not enough")
    assert (failed.open, failed.failed) == (Open.ERROR, {"crown": "RuntimeError: 60 seconds were not enough"})
    assert old("pgd: out of luck", stage="pgd", stage_seconds={}).failed == {"pgd": "out of luck"}
    assert old("", verdict="certified", bound=1.0).failed == {}


def test_records_that_say_failed_and_late_are_read():
    def old(**changes: object) -> SampleRecord:
        content = {**UNKNOWN, "failed": {}, "late": False, "reason": "", **changes}
        record = {name: content[name] for name in content if name != "open"}
        return SampleRecord.from_json({**record, "checksum": checksum(record)})

    failed = {"pgd": "RuntimeError: no"}
    assert old().open is Open.UNDECIDED
    assert old(late=True, reason="60 seconds were not enough").open is Open.TIME
    assert old(failed=failed, reason="pgd: RuntimeError: no").open is Open.ERROR
    assert old(failed=failed, late=True, reason="pgd: RuntimeError: no").open is Open.ERROR
    assert old(verdict="certified", bound=1.0, failed=failed).open is None
    assert "late" not in old(late=True, reason="60 seconds were not enough").to_json()
    with pytest.raises(ValueError, match="its reason is '', but unknown needs one, because a stage failed or was late"):
        old(late=True)


@pytest.fixture
def files(tmp_path: Path) -> CertificationFiles:
    """The files of a certification of two samples."""
    pair = RunFolder(tmp_path).certification("linf-0.1")
    pair.start({"norm": "linf", "eps": 0.1}, resume=False)
    pair.append([SampleRecord.from_json(CERTIFIED), SampleRecord.from_json({**FALSIFIED, "index": 7})])
    return pair


def edited(files: CertificationFiles, **change: object) -> None:
    """Change fields of the second record by hand."""
    first, second = jsonl.read(files.records)
    files.records.write_text(json.dumps(first) + "\n" + json.dumps(second | change) + "\n")


READERS = {
    "resume": lambda files: files.start({"norm": "linf", "eps": 0.1}, resume=True),
    "read": lambda files: files.read(),
    "merge": lambda files: CertificationFiles(files.records.with_name("all.jsonl")).merge([files]),
    "compare": lambda files: report.rows([files.records.parents[1]]),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_record_that_was_edited_and_names_its_line(files, reader):
    edited(files, verdict="certified", bound=-5)
    before = files.records.read_bytes()
    with pytest.raises(
        ValueError, match=r"linf-0\.1\.jsonl, line 2: .*its bound is -5, but certified needs a bound > 0"
    ):
        READERS[reader](files)
    assert files.records.read_bytes() == before


def test_an_edit_that_contradicts_nothing_shows_in_the_checksum(files):
    edited(files, verdict="certified", bound=0.5, stage="crown")
    with pytest.raises(
        ValueError, match=r"line 2: .*its checksum is '\w+', the other fields have '\w+': it was edited"
    ):
        files.read()


def without(record: dict, *names: str) -> dict:
    return {name: value for name, value in record.items() if name not in names}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_record_whose_checksum_was_removed(files, reader):
    first, second = jsonl.read(files.records)
    jsonl.rewrite(files.records, [first, without(second, "checksum")])
    with pytest.raises(ValueError, match=r"linf-0\.1\.jsonl, line 2: .*it lacks 'checksum', which each record with"):
        READERS[reader](files)
    jsonl.rewrite(files.records, [first, without(second, "checksum", "late")])
    with pytest.raises(ValueError, match=r"line 2: .*it lacks 'checksum'"):
        READERS[reader](files)


def test_records_from_before_there_were_checksums_are_read(files):
    expected = files.read()
    old = [without(record, "checksum", "failed", "late", "open") for record in jsonl.read(files.records)]
    jsonl.rewrite(files.records, old)
    assert files.read() == expected
    merged = CertificationFiles(files.records.with_name("all.jsonl"))
    assert merged.merge([files]) == merged.read() == expected
    assert all("checksum" in record for record in jsonl.read(merged.records))


@pytest.mark.parametrize("reader", [name for name in READERS if name != "read"])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({}, "it lacks 'eps'"),
        ({"norm": "linf"}, "it lacks 'eps'"),
        ({"eps": "0.1"}, "its eps is '0.1', expected a finite number >= 0"),
        ({"eps": [[0.1], [-1]]}, "its eps is [[0.1], [-1]], expected a finite number >= 0, or lists of such numbers"),
        ({"eps": True}, "its eps is True, expected a finite number >= 0"),
        ({"eps": 0.1, "norm": 2}, "its norm is 2, expected a text, not empty"),
        ({"eps": 0.05, "threat": "Linf(eps=0.1, clip=(0.0, 1.0))"}, "its eps is 0.05, but its threat is Linf(eps=0.1"),
    ],
)
def test_every_reader_refuses_settings_that_cannot_be(files, reader, content, fault):
    files.settings.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(fault)) as error:
        READERS[reader](files)
    assert str(error.value).startswith(f"{files.settings}: not the settings of a certification (")
    assert "restore the file, or certify again" in str(error.value)


def test_an_edit_of_the_settings_shows_in_the_checksum(files):
    assert files.read_settings() == {"norm": "linf", "eps": 0.1}
    settings = json.loads(files.settings.read_text())
    files.settings.write_text(json.dumps(settings | {"eps": 0.05}))
    with pytest.raises(ValueError, match=r"its checksum is '\w+', the other fields have '\w+': it was edited"):
        report.rows([files.records.parents[1]])


def test_settings_from_before_they_had_a_checksum_are_read(files):
    old = {"eps": 8 / 255, "threat": f"Linf(eps={8 / 255}, clip=(0.0, 1.0))"}
    files.settings.write_text(json.dumps(old))
    assert files.read_settings() == old


def test_a_radius_for_each_feature_is_read(tmp_path):
    by_feature = CertificationFiles(tmp_path / "linf.jsonl")
    by_feature.start({"eps": [[0.1, 0.2]], "norm": "linf", "threat": "Linf(eps=[[0.1, 0.2]])"}, resume=False)
    assert by_feature.read_settings()["eps"] == [[0.1, 0.2]]


INSTANCE = {"name": "net_prop", "verdict": "unsat", "stage": "crown", "bound": 0.5, "seconds": 1.0, "failed": {}}


@pytest.mark.parametrize("change", [{}, {"stage": "", "bound": None}, {"verdict": "sat", "bound": -1}])
def test_records_of_instances_that_can_be_are_read(change):
    check_instance(INSTANCE | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bound": -5}, "its bound is -5, but unsat needs a bound > 0"),
        ({"bound": None}, "its bound is None, but unsat needs a bound > 0"),
        ({"bound": float("nan")}, "its bound is nan, expected a finite number or null"),
        ({"verdict": "sat"}, "its bound is 0.5, but sat needs null or a bound <= 0"),
        ({"verdict": "holds"}, "its verdict is 'holds', expected unsat, sat, unknown, timeout, error"),
        ({"name": 3}, "its name is 3, expected a text, not empty"),
        ({"failed": ["crown"]}, "its failed is ['crown'], expected a message by stage"),
    ],
)
def test_contradictions_of_instances_are_named(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_instance(INSTANCE | change)
    with pytest.raises(ValueError, match="it lacks 'bound'"):
        check_instance({name: value for name, value in INSTANCE.items() if name != "bound"})
