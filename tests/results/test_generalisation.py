"""Ratios of accuracies on corrupted and clean images."""

import math

import pytest

from ctbench.results import CorruptionRecord, Generalisation, append_corruptions, jsonl, read_corruptions


def record(corruption: str, severity: int | None, right: int, samples: int = 10) -> CorruptionRecord:
    return CorruptionRecord(corruption=corruption, severity=severity, right=right, samples=samples)


RECORDS = (
    record("clean", None, 8),
    record("fog", 1, 8),
    record("fog", 5, 4),
    record("zigzag", 1, 6),
    record("zigzag", 5, 2),
)


def test_ratios_by_hand():
    found = Generalisation(RECORDS)
    assert found.clean_accuracy == 0.8
    assert (found.corruptions, found.severities) == (("fog", "zigzag"), (1, 5))
    assert found.accuracy("fog") == 0.6
    assert found.ratio("fog") == pytest.approx(0.75)
    assert found.ratio("fog", 5) == pytest.approx(0.5)
    assert found.mean() == pytest.approx((0.75 + 0.5) / 2)
    assert found.mean(1) == pytest.approx((1 + 0.75) / 2)


def test_severities_are_pooled_by_images_and_corruptions_are_not():
    found = Generalisation(
        (record("clean", None, 10), record("fog", 1, 10), record("fog", 2, 0, 30), record("x", 1, 2))
    )
    assert found.ratio("fog") == 0.25
    assert found.mean() == pytest.approx((0.25 + 0.2) / 2)


def test_a_network_that_is_never_right_has_no_ratio():
    assert math.isnan(Generalisation((record("clean", None, 0), record("fog", 1, 1))).ratio("fog"))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (RECORDS[:1], "there must be a record of the clean images, and one of a corruption"),
        (RECORDS[1:], "there must be a record of the clean images"),
        ((*RECORDS, record("fog", 1, 3)), "fog at severity 1 has two records"),
    ],
)
def test_incomplete_records_are_refused(records, said):
    with pytest.raises(ValueError, match=said):
        Generalisation(records)
    if len(records) > 1:
        with pytest.raises(ValueError, match="there is no record of fog at severity 3"):
            Generalisation(RECORDS).accuracy("fog", 3)


@pytest.mark.parametrize(
    "counts", [{"right": 11}, {"right": -1}, {"samples": 0, "right": 0}, {"right": 1.5}, {"right": True}]
)
def test_counts_must_fit(counts):
    with pytest.raises(ValueError, match="give whole numbers, 0 <= right <= samples"):
        CorruptionRecord(corruption="fog", severity=1, **{"right": 1, "samples": 10, **counts})


def test_files_hold_records(tmp_path):
    path = tmp_path / "ours.jsonl"
    append_corruptions(path, RECORDS[:2])
    append_corruptions(path, RECORDS[2:])
    assert tuple(read_corruptions(path).values()) == RECORDS
    assert read_corruptions(tmp_path / "none.jsonl") == {}
    jsonl.append(path, [{"corruption": "fog"}])
    with pytest.raises(ValueError, match=r"ours\.jsonl, line 6: not the record of a corrupted test set"):
        read_corruptions(path)


def test_two_records_of_one_set_are_named(tmp_path):
    path = tmp_path / "ours.jsonl"
    append_corruptions(path, [RECORDS[1], RECORDS[1]])
    with pytest.raises(ValueError, match=r"ours\.jsonl, line 2: fog at severity 1 has two records"):
        read_corruptions(path)
