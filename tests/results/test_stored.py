"""Records that stay in their file: the same as in memory, without the memory."""

import os
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict, checking, jsonl


def record(index: int, verdict: Verdict = Verdict.CERTIFIED, **more) -> SampleRecord:
    settings = {"label": index % 3, "prediction": index % 3, "stage": "crown", "bound": 0.5, "seconds": 0.25}
    return SampleRecord(index=index, verdict=verdict, digest="0" * 16, **{**settings, **more})


@pytest.fixture
def files(tmp_path):
    """Records out of order, one of them of an earlier attempt."""
    files = CertificationFiles(tmp_path / "linf.jsonl")
    files.start({"eps": 0.1}, resume=False)
    files.append([record(7), record(2, Verdict.UNKNOWN, bound=None, reason="no", failed={"crown": "oh"})])
    files.append([record(4), record(3, Verdict.UNKNOWN, bound=-1.0)])
    files.append([record(3, Verdict.FALSIFIED, bound=None, attempt=1)])
    return files


def test_stored_records_are_those_in_memory(files):
    stored, whole = files.open(), files.read()
    assert stored == whole
    assert whole == stored
    assert stored != Certification(whole.records[:-1])
    assert stored != Certification((*whole.records[:-1], record(8)))
    assert stored.indices.tolist() == whole.indices.tolist() == [2, 3, 4, 7]
    assert stored[1].verdict is Verdict.FALSIFIED
    assert stored.summary() == whole.summary()
    assert stored.failures == whole.failures
    assert stored.tally == whole.tally
    assert stored.only(np.array([3, 7, 9])) == whole.only(np.array([3, 7, 9])) == Certification(whole.records[1::2])


def test_records_that_are_added_later_change_nothing(files):
    stored, before = files.open(), files.read()
    offsets = files.append([record(1), record(9)])
    assert stored == before
    assert files.open().records.offsets[[0, -1]].tolist() == offsets


def test_a_file_that_was_edited_after_it_was_opened_is_refused(files):
    stored, content = files.open(), files.records.read_bytes()
    files.records.write_bytes(content.replace(b"0.25", b"0.26", 1))
    with pytest.raises(ValueError, match=r"linf.jsonl, byte 0: .*it was edited"):
        list(stored)
    files.records.write_bytes(content.replace(b'"index": 7', b'"index": 5', 1))
    with pytest.raises(ValueError, match="it was edited"):
        list(stored)
    first, second, third, *others = content.splitlines(keepends=True)
    files.records.write_bytes(b"".join((third, second, first, *others)))
    with pytest.raises(ValueError, match="sample 7 in place of sample 4: it was edited"):
        list(stored)


@pytest.mark.parametrize("seconds", [0, 3600], ids=["just-written", "an-hour-old"])
def test_a_file_is_checked_once_unless_it_changes(files, monkeypatch, seconds):
    count = []
    monkeypatch.setattr(checking, "checksum", lambda record, real=checking.checksum: count.append(1) or real(record))
    past = time.time() - seconds
    os.utime(files.records, (past, past))
    stored, lines = files.open(), 5
    assert len(count) == lines
    whole = list(stored)
    assert len(count) == (lines if seconds else lines + len(stored))
    assert whole == list(files.read())
    edited = files.records.read_bytes().replace(b"0.25", b"0.26", 1)
    files.records.write_bytes(edited)
    with pytest.raises(ValueError, match=r"byte 0: .*it was edited"):
        stored[3]
    with pytest.raises(ValueError, match=r"byte 0: .*it was edited"):
        list(stored.only(np.array([7])))


def test_a_record_takes_a_few_bytes(tmp_path):
    files, number = CertificationFiles(tmp_path / "linf.jsonl"), 2000
    files.start({"eps": 0.1}, resume=False)
    files.append([record(index, stage_seconds={"clean": 0.125, "crown": 0.125}) for index in range(number)])
    tracemalloc.start()
    try:
        stored = files.open()
        assert stored.certified_accuracy == 1
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 40 * number
    assert peak < 200 * number + 2**16


def test_merged_parts_are_in_order_and_a_sample_in_two_parts_is_named(tmp_path):
    parts = [CertificationFiles(tmp_path / f"{name}.jsonl") for name in "abc"]
    for part, indices in zip(parts, ([5, 1], [0, 9, 3], [4, 9]), strict=True):
        part.start({"eps": 0.1, "samples": [0, 10]}, resume=False)
        part.append([record(index) for index in indices])
    merged = CertificationFiles(tmp_path / "all.jsonl").merge(parts[:2])
    assert [each.index for each in merged] == [0, 1, 3, 5, 9]
    assert [each["index"] for each in jsonl.read(tmp_path / "all.jsonl")] == [0, 1, 3, 5, 9]
    with pytest.raises(ValueError, match=r"sample 9 has two records, in .*b.jsonl and in .*c.jsonl"):
        CertificationFiles(tmp_path / "new.jsonl").merge(parts)


def test_a_record_of_another_radius_replaces_an_open_one_only(files):
    files.append([record(2, decided_at=0.2, decided_seconds=1.0)])
    assert files.open()[0].decided_at == 0.2
    files.append([replace(record(7), decided_at=0.2, decided_seconds=1.0)])
    with pytest.raises(ValueError, match="sample 7 has two records"):
        files.open()


def test_a_tally_shows_the_first_open_sample_and_counts_what_follows_from_elsewhere():
    several = [record(index, Verdict.UNKNOWN, bound=None, reason=f"{index}", attempt=index % 2) for index in (5, 2, 9)]
    tally = Certification.of([*several, record(3, decided_at=0.2, decided_seconds=1.0), record(4)]).tally
    assert (tally.reasons, tally.example, tally.implied) == (3, several[1], 1)
    assert tally.attempts == {0: 1, 1: 2}
