"""Records of a certification, the accuracies that follow, and the files that hold them."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from ctbench.results import Certification, CertificationFiles, RunFolder, SampleRecord, Verdict, jsonl
from ctbench.results.runs import extends
from ctbench.results.stored import latest

SOURCE = Path(__file__).parents[2] / "src" / "ctbench"


def record(index: int, verdict: str, stage: str = "interval", *, label: int = 1, prediction: int = 1, **fields):
    values = {"bound": None, "seconds": 0.5} | fields
    return SampleRecord(
        index=index, label=label, prediction=prediction, verdict=Verdict(verdict), stage=stage, **values
    )


RECORDS = [
    record(3, "unknown", "crown", bound=-0.25),
    record(0, "certified", bound=0.5),
    record(1, "certified", "crown", bound=0.125),
    record(2, "falsified", "pgd", bound=-3.0),
    record(4, "misclassified", "clean", prediction=0),
    record(7, "misclassified", "clean", prediction=2),
    record(6, "unknown", "clean", prediction=-1, reason="clean: NaN", failed={"clean": "NaN"}),
    record(5, "certified", bound=2.0),
]


def test_accuracies_are_shares_of_all_samples():
    certification = Certification.of(RECORDS)
    assert len(certification) == 8
    assert certification.natural_accuracy == 5 / 8
    assert certification.adversarial_accuracy == 4 / 8
    assert certification.certified_accuracy == 3 / 8
    assert certification.seconds == 4.0


def test_verdicts_are_counted():
    assert Certification.of(RECORDS).counts == {
        Verdict.CERTIFIED: 3,
        Verdict.FALSIFIED: 1,
        Verdict.UNKNOWN: 2,
        Verdict.MISCLASSIFIED: 2,
    }
    assert Certification.of(RECORDS).stages == {
        "interval": {Verdict.CERTIFIED: 2},
        "crown": {Verdict.CERTIFIED: 1, Verdict.UNKNOWN: 1},
        "pgd": {Verdict.FALSIFIED: 1},
        "clean": {Verdict.MISCLASSIFIED: 2, Verdict.UNKNOWN: 1},
    }


def test_a_certification_is_shown_in_a_line_and_summarised_in_a_few():
    certification = Certification.of(RECORDS)
    accuracies = "8 samples: natural 62.50 %, adversarial 50.00 %, certified 37.50 %"
    assert repr(certification) == f"<Certification of {accuracies}, 2 unknown>"
    first, *lines = certification.summary().splitlines()
    assert first == accuracies
    assert [line.split() for line in lines[:2]] == [
        ["certified", "3", "interval", "2,", "crown", "1"],
        ["falsified", "1", "pgd", "1"],
    ]
    assert any("failed: clean on 1 sample (NaN)" in line for line in lines)
    assert Certification.of([]).summary() == "0 samples: natural 0.00 %, adversarial 0.00 %, certified 0.00 %"


def test_each_class_has_its_own_certification():
    parts = Certification.of(
        [record(0, "certified", label=2), *RECORDS[1:3], record(5, "unknown", label=0)][::2]
    ).by_class()
    assert list(parts) == [1, 2]
    parts = Certification.of(
        [record(0, "certified", label=2, prediction=2), record(1, "unknown", label=0, prediction=0)]
    ).by_class()
    assert {label: part.certified_accuracy for label, part in parts.items()} == {0: 0.0, 2: 1.0}
    assert sum(map(len, Certification.of(RECORDS).by_class().values())) == len(RECORDS)


def test_a_later_attempt_replaces_only_unknown_records():
    earlier = record(3, "unknown", "crown", bound=-0.25, stage_seconds={"clean": 0.1, "crown": 0.4})
    later = record(3, "certified", "milp", bound=0.5, seconds=2.0, stage_seconds={"crown": 0.5, "milp": 1.5}, attempt=1)
    joined = later.after(earlier)
    assert (joined.seconds, joined.bound) == (2.5, 0.5)
    assert joined.stage_seconds == {"clean": 0.1, "crown": 0.9, "milp": 1.5}
    assert SampleRecord.from_json(joined.to_json()) == joined
    assert record(3, "unknown", bound=None).after(earlier).bound == -0.25
    assert record(3, "falsified", "pgd", bound=None).after(earlier).bound is None
    assert [each.tolist() for each in latest(enumerate([earlier, later]), Path("a"))] == [[3], [1]]
    for others in ([later, replace(earlier, attempt=2)], [earlier, replace(later, attempt=0)]):
        with pytest.raises(ValueError, match="a: sample 3 has two records"):
            latest(enumerate(others), Path("a"))


BEFORE = {"stages": ["a", "b"], "timeout": 10.0, "eps": 0.1}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"stages": ["a", "b", "c"]}, True),
        ({"stages": ["a", "x", "b"]}, True),
        ({"timeout": 20.0}, True),
        ({"timeout": None}, True),
        ({"stages": ["a", "b", "c"], "timeout": 20.0}, True),
        ({"stages": ["b", "a"]}, False),
        ({"stages": ["b"]}, False),
        ({"stages": ["a", "c"]}, False),
        ({"timeout": 5.0}, False),
        ({"stages": ["a", "b", "c"], "timeout": 5.0}, False),
        ({"stages": ["a", "b", "c"], "eps": 0.2}, False),
        ({"timeout": 20.0, "network_digest": "other"}, False),
        ({"timeout": 20.0, "rounding": "nearest"}, False),
    ],
)
def test_more_stages_and_more_time_extend_settings_and_nothing_else(changes, more):
    assert extends(BEFORE, BEFORE | changes) is more


def test_records_stand_in_the_order_of_their_indices():
    certification = Certification.of(RECORDS)
    assert [r.index for r in certification] == list(range(8))
    assert certification[2] == RECORDS[3]


def test_a_sample_with_two_records_is_refused():
    with pytest.raises(ValueError, match="sample 3 has two records"):
        Certification.of([*RECORDS, record(3, "certified")])


def test_no_samples_have_no_accuracy():
    certification = Certification.of([])
    assert (
        len(certification),
        certification.natural_accuracy,
        certification.certified_accuracy,
        certification.seconds,
    ) == (0, 0, 0, 0)
    assert set(certification.counts.values()) == {0}


@pytest.mark.parametrize("sample", RECORDS, ids=lambda r: str(r.index))
def test_a_record_is_the_same_after_json(sample):
    again = SampleRecord.from_json(json.loads(json.dumps(sample.to_json())))
    assert again == sample
    assert isinstance(again.verdict, Verdict)
    assert sample.to_json().keys() == {
        "decided_at",
        "decided_seconds",
        "digest",
        "index",
        "label",
        "prediction",
        "verdict",
        "stage",
        "bound",
        "seconds",
        "stage_seconds",
        "reason",
        "failed",
        "open",
        "attempt",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "proved"}, r"its verdict is 'proved', expected certified, falsified, unknown, misclassified\)"),
        ({"verdict": None}, "its verdict is None"),
        ({"verdict": []}, r"its verdict is \[\]"),
        ({"extra": 1, "finished": True}, "it has 'extra', which is unknown; it has 'finished', which is unknown"),
    ],
    ids=["verdict", "no verdict", "no text", "extra"],
)
def test_other_records_are_refused(change, message):
    with pytest.raises(ValueError, match=rf"not the record of a certified sample \({message}"):
        SampleRecord.from_json(RECORDS[0].to_json() | change)


@pytest.mark.parametrize("missing", ["verdict", "index", "seconds"])
def test_records_that_lack_a_field_are_refused(missing):
    content = RECORDS[0].to_json()
    del content[missing]
    with pytest.raises(ValueError, match=rf"not the record of a certified sample \(it lacks '{missing}'\)"):
        SampleRecord.from_json(content)


# ---------------------------------------------------------------------------------------------- files


def test_files_begin_with_settings_and_no_record(tmp_path):
    files = CertificationFiles(tmp_path / "new" / "linf.jsonl")
    assert list(files.start({"eps": 0.1}, resume=False)) == []
    assert files.read_settings() == {"eps": 0.1}
    assert json.loads(files.settings.read_text()).keys() == {"eps", "checksum"}
    assert files.records.read_bytes() == b""


def test_resuming_gives_the_whole_records_and_drops_a_torn_one(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    files.start({"eps": 0.1}, resume=False)
    files.append(RECORDS[:3])
    with files.records.open("a") as file:
        file.write('{"index": 4, "label"')
    assert list(files.start({"eps": 0.1}, resume=True)) == sorted(RECORDS[:3], key=lambda r: r.index)
    files.append([RECORDS[4]])
    assert files.read() == Certification.of([*RECORDS[:3], RECORDS[4]])


def test_a_file_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    for resume in (False, True):
        with pytest.raises(ValueError, match="metrics"):
            CertificationFiles(tmp_path / "metrics.jsonl").start({"eps": 0.1}, resume=resume)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_file_beside_the_records_is_not_overwritten(tmp_path):
    """The settings of recipe.jsonl would lie in recipe.json."""
    (tmp_path / "recipe.json").write_text('{"name": "ibp"}')
    with pytest.raises(ValueError, match="recipe"):
        CertificationFiles(tmp_path / "recipe.jsonl").start({"eps": 0.1}, resume=False)
    assert (tmp_path / "recipe.json").read_text() == '{"name": "ibp"}'


def test_records_and_settings_are_two_files(tmp_path):
    with pytest.raises(ValueError, match="jsonl"):
        CertificationFiles(tmp_path / "linf.json").start({"eps": 0.1}, resume=False)


def test_a_run_folder_names_its_files(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no recipe\.json"):
        folder.require()
    assert folder.certifications() == []
    for name in ("linf-0.2", "linf-0.1"):
        folder.certification(name).start({}, resume=False)
    folder.recipe.write_text("{}")
    folder.require()
    assert [files.records.name for files in folder.certifications()] == ["linf-0.1.jsonl", "linf-0.2.jsonl"]
    assert folder.certification("linf-0.1").settings == tmp_path / "certified" / "linf-0.1.json"


def test_records_that_cannot_be_read_are_named_by_file_and_line(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    files.start({"eps": 0.1}, resume=False)
    files.append(RECORDS[:2])
    jsonl.append(files.records, [RECORDS[2].to_json() | {"verdict": "proved"}])
    with pytest.raises(
        ValueError, match=r"linf\.jsonl, line 3: not the record .* is 'proved'.*: remove this line, and certify"
    ):
        files.read()
    jsonl.rewrite(files.records, [])
    files.append(RECORDS[:1] * 2)
    with pytest.raises(ValueError, match=r"linf\.jsonl: sample 3 has two records: remove one of the two lines"):
        files.start({"eps": 0.1}, resume=True)


def test_settings_that_cannot_be_read_are_named_beside_their_records(tmp_path):
    files = CertificationFiles(tmp_path / "linf.jsonl")
    with pytest.raises(
        FileNotFoundError, match=r"no file .*linf\.json, the settings of .*linf\.jsonl: keep both files"
    ):
        files.read_settings()
    files.settings.write_text("[1]")
    with pytest.raises(ValueError, match=r"linf\.json holds no settings of a certification but list"):
        files.read_settings()


@pytest.mark.parametrize("part", ["results", "report"])
def test_results_and_reports_are_made_without_torch(part):
    files = sorted((SOURCE / part).glob("*.py"))
    assert len(files) >= 2
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] != "torch", f"{path.name} imports {name}"
                if name.startswith("ctbench"):
                    assert name.split(".")[1] in ("results", "report", "files"), f"{path.name} imports {name}"


def test_what_is_in_memory_alone_is_neither_written_nor_compared():
    falsified = record(2, "falsified", "pgd", counterexample=np.array([0.25, 0.5]))
    assert falsified == record(2, "falsified", "pgd")
    assert falsified.to_json() == record(2, "falsified", "pgd").to_json()
    again = SampleRecord.from_json(json.loads(json.dumps(falsified.to_json())))
    assert again.counterexample is None


def test_records_without_seconds_by_stage_are_read():
    content = RECORDS[0].to_json()
    del content["stage_seconds"]
    assert SampleRecord.from_json(content) == RECORDS[0]


def test_seconds_are_added_up_by_stage():
    spent = ({"clean": 0.25, "interval": 0.5}, {"clean": 0.25, "interval": 0.5, "crown": 2.0}, {})
    certification = Certification.of(record(index, "certified", stage_seconds=part) for index, part in enumerate(spent))
    assert certification.seconds_by_stage == {"clean": 0.5, "interval": 1.0, "crown": 2.0}
    assert list(certification.seconds_by_stage) == ["clean", "interval", "crown"]


def test_records_become_dictionaries_and_a_table(monkeypatch):
    certification = Certification.of([record(0, "certified", stage_seconds={"clean": 0.5}), RECORDS[2]])
    assert certification.to_dicts() == [certification[0].to_json(), certification[1].to_json()]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pandas is not there .*: pip install pandas, or use to_dicts\(\)"):
        certification.to_pandas()


def test_a_table_has_a_column_for_the_seconds_of_each_stage():
    pytest.importorskip("pandas")
    certification = Certification.of([record(0, "certified", stage_seconds={"clean": 0.5}), RECORDS[2]])
    compact = certification.to_pandas()
    assert [compact.index.name, *compact.columns] == [
        "index",
        "label",
        "prediction",
        "verdict",
        "open",
        "stage",
        "bound",
        "seconds",
    ]
    table = certification.to_pandas(details=True)
    assert table["index"].tolist() == [0, 1]
    assert table["verdict"].tolist() == ["certified", "certified"]
    assert table["stage_seconds.clean"].tolist()[0] == 0.5


def test_points_are_written_before_the_records_that_they_belong_to(tmp_path, monkeypatch):
    files = CertificationFiles(tmp_path / "l2-0.5.jsonl")
    files.start({}, resume=False)
    point = np.array([[0.1, 1 / 3]])
    records = [record(1, "certified"), record(2, "falsified", "pgd", counterexample=point)]
    files.append(records)
    assert not files.counterexamples.exists()
    monkeypatch.setattr(jsonl, "append", lambda *_: pytest.fail("the process dies here"))
    with pytest.raises(pytest.fail.Exception):
        files.append(records, counterexamples=True)
    assert [path.name for path in (tmp_path / "l2-0.5.counterexamples").iterdir()] == ["2.npy"]
    written = np.load(files.counterexamples / "2.npy")
    assert written.dtype == np.float64
    assert (written == point).all()


# ---------------------------------------------------------------------------------------------- merging


def part(path: Path, indices: list[int], **settings: object) -> CertificationFiles:
    files = CertificationFiles(path)
    files.start({"eps": 0.1, "norm": "linf", **settings}, resume=False)
    files.append([RECORDS[index] for index in indices])
    return files


def test_parts_are_merged_into_one_file(tmp_path):
    parts = [part(tmp_path / "b.jsonl", [3, 0]), part(tmp_path / "a.jsonl", [1, 2, 4])]
    with parts[1].records.open("a") as file:
        file.write('{"index": 9, "lab')  # a machine died
    merged = CertificationFiles(tmp_path / "new" / "linf-0.1.jsonl")
    certification = merged.merge(parts)
    assert certification == merged.read() == Certification.of(RECORDS[:5])
    assert merged.read_settings() == {"eps": 0.1, "norm": "linf"}
    assert merged.start({"eps": 0.1, "norm": "linf"}, resume=True).indices.tolist() == [0, 1, 2, 3, 4]


def test_parts_that_do_not_belong_together_are_not_merged(tmp_path):
    first, out = part(tmp_path / "first.jsonl", [0, 1]), CertificationFiles(tmp_path / "out.jsonl")
    cases = [
        (part(tmp_path / "other.jsonl", [2], eps=0.2), r"other.jsonl was made under other settings .*eps was 0.1, now"),
        (
            part(tmp_path / "twice.jsonl", [2, 1]),
            r"sample 0 has two records, in .*first.jsonl and in .*twice.jsonl: merge",
        ),
        (first, r"sample 0 has two records, in .*first.jsonl and in .*first.jsonl"),
    ]
    for other, message in cases:
        with pytest.raises(ValueError, match=message):
            out.merge([first, other])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        out.merge([first, CertificationFiles(tmp_path / "nowhere.jsonl")])
    (tmp_path / "nowhere.json").write_text(first.settings.read_text())
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.jsonl"):
        out.merge([first, CertificationFiles(tmp_path / "nowhere.jsonl")])
    assert not out.records.exists()


def test_merging_overwrites_nothing(tmp_path):
    first, other = part(tmp_path / "first.jsonl", [0]), part(tmp_path / "other.jsonl", [1])
    kept = first.records.read_bytes()
    with pytest.raises(ValueError, match=r"first\.jsonl exists already: merge into a new file"):
        first.merge([first, other])
    assert first.records.read_bytes() == kept


def test_a_lock_that_cannot_be_made_is_not_taken_for_another_process(tmp_path, monkeypatch):
    def timeout(*_):
        raise Timeout("linf.lock")

    monkeypatch.setattr(FileLock, "acquire", timeout)
    with pytest.raises(PermissionError, match=r"linf\.lock"), CertificationFiles(tmp_path / "linf.jsonl").alone():
        pass
