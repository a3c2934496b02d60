"""The results of attacks: accuracies and discrepancies are those of the records."""

import pytest

from ctbench.results import jsonl, read_attacked
from ctbench.results.fairness import discrepancy


def test_accuracies_and_discrepancies_are_those_of_the_records(tmp_path):
    rows = [(0, 0, None), (0, 0, "pgd"), (1, 1, None), (1, 0, None), (1, 1, None)]
    path = tmp_path / "pgd.jsonl"
    jsonl.append(path, [dict(zip(("label", "prediction", "attack"), row, strict=True)) for row in rows])
    result = read_attacked(path)
    assert (len(result), result.labels) == (5, (0, 0, 1, 1, 1))
    assert (result.natural_accuracy, result.adversarial_accuracy) == pytest.approx((0.8, 0.6))
    assert result.natural_discrepancy == pytest.approx((1 / 3 - 1 / 5) / (4 / 5))
    assert result.robust_discrepancy == pytest.approx((1 / 2 - 2 / 5) / (3 / 5))
    assert result.robust_discrepancy == discrepancy([False, True, False, True, False], [0, 0, 1, 1, 1])


def test_no_records_are_no_result_and_others_are_refused(tmp_path):
    path = tmp_path / "pgd.jsonl"
    assert read_attacked(path) is None
    jsonl.append(path, [{"label": 0, "prediction": 1}])
    with pytest.raises(ValueError, match=r"pgd\.jsonl: a record lacks attack: remove both files"):
        read_attacked(path)
