"""Shared mistakes: the counts of CTBench's tables, and which files may be compared."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ctbench import report
from ctbench.results import (
    Agreement,
    CertificationFiles,
    RunFolder,
    SampleRecord,
    Verdict,
    certification_of,
    compare_certifications,
    expected_counts,
)

# CTBench, Table 1: certified accuracy (%) of IBP, CROWN-IBP, SABR, TAPS, STAPS and MTL-IBP
CERTIFIED = {
    "mnist_01": (98.26, 98.21, 98.40, 98.52, 98.47, 98.37),
    "mnist_03": (93.80, 93.90, 93.68, 93.95, 93.64, 93.90),
    "cifar10_2": (55.99, 57.11, 63.61, 61.27, 64.21, 64.41),
    "cifar10_8": (35.28, 32.59, 35.34, 35.25, 35.11, 35.41),
}
# CTBench, Tables 2 and 10: observed and expected numbers of samples that 0 ... 6 models certify
TABLES = {
    "mnist_01": ((93, 25, 21, 30, 32, 56, 9743), (0, 0, 0, 1, 37, 900, 9062)),
    "mnist_03": ((452, 73, 53, 51, 80, 111, 9180), (0, 0, 2, 39, 445, 2698, 6816)),
    "cifar10_2": ((2350, 653, 520, 564, 708, 894, 4311), (35, 330, 1296, 2704, 3163, 1965, 507)),
    "cifar10_8": ((5206, 679, 487, 388, 387, 585, 2268), (766, 2457, 3283, 2339, 937, 200, 18)),
}
# CTBench, Table 9: samples that neither, one, and both of two verifiers certify, observed and expected
TABLE_9 = {"2/255": ((3549, 15, 6436), (1264, 4585, 4151)), "8/255": ((6454, 9, 3537), (4171, 4575, 1254))}


@pytest.mark.parametrize("setting", ["mnist_01", "mnist_03", "cifar10_8"])
def test_expected_counts_are_those_of_tables_2_and_10(setting):
    expected = expected_counts([percent / 100 for percent in CERTIFIED[setting]], 10_000)
    assert tuple(map(round, expected)) == TABLES[setting][1]


def test_expected_counts_at_2_255_are_within_20_of_table_10():
    """The paper's row comes from other accuracies: its observed counts have a mean accuracy of 60.9 %, not 61.1 %."""
    expected = expected_counts([percent / 100 for percent in CERTIFIED["cifar10_2"]], 10_000)
    assert tuple(map(round, expected)) == (34, 323, 1280, 2691, 3172, 1985, 515)
    assert max(abs(ours - theirs) for ours, theirs in zip(expected, TABLES["cifar10_2"][1], strict=True)) < 21


def agreement(*certified: list[bool]) -> Agreement:
    return Agreement(
        names=tuple("abcdefg"[: len(certified)]),
        indices=tuple(range(len(certified[0]))),
        labels=(1,) * len(certified[0]),
        certified=np.array(certified),
    )


@pytest.mark.parametrize("eps", TABLE_9)
def test_two_verifiers_of_one_network_as_in_table_9(eps):
    (neither, one, both), expected = TABLE_9[eps]
    half = one // 2
    first = [False] * neither + [True] * half + [False] * (one - half) + [True] * both
    second = [False] * neither + [False] * half + [True] * (one - half) + [True] * both
    found = agreement(first, second)
    assert found.observed == [neither, one, both]
    assert max(abs(ours - theirs) for ours, theirs in zip(found.expected, expected, strict=True)) <= 2
    assert found.correlations[0][1] == pytest.approx(np.corrcoef(first, second)[0, 1], abs=1e-12)
    assert found.correlations[0][1] > 0.99


def test_counts_and_difficulties_by_hand():
    found = agreement(
        [True, True, False, False, True], [True, False, False, True, True], [True, False, False, False, True]
    )
    assert found.times_certified == [3, 1, 0, 1, 3]
    assert found.observed == [1, 2, 0, 2]
    assert found.uncertified == [2]
    assert found.accuracies == [0.6, 0.6, 0.4]
    law = [sum(np.prod([p if hit else 1 - p for p, hit in zip((0.6, 0.6, 0.4), coins, strict=True)])
               for coins in product((0, 1), repeat=3) if sum(coins) == k) for k in range(4)]  # fmt: skip
    assert found.expected == pytest.approx([5 * share for share in law])
    assert [sample["index"] for sample in found.difficulties()] == [2, 1, 3, 0, 4]
    assert [sample["difficulty"] for sample in found.difficulties()] == pytest.approx([1, 2 / 3, 2 / 3, 0, 0])


def test_a_certification_of_all_or_no_samples_has_no_correlation():
    found = agreement([True, True], [True, False])
    assert found.correlations == [[None, None], [None, 1.0]]


def test_one_certification_or_no_samples_is_an_error():
    with pytest.raises(ValueError, match=r"there are 1 certifications of 2 samples: give at least two"):
        agreement([True, True])
    with pytest.raises(ValueError, match="there are 2 certifications of 0 samples"):
        Agreement(names=("a", "b"), indices=(), labels=(), certified=np.zeros((2, 0), bool))


SETTINGS = {"dataset": "digits", "norm": "linf", "eps": 0.1, "threat": "Linf(eps=0.1)", "network": "cnn3"}


def record(index: int, *, certified: bool, label: int = 1, digest: str | None = None) -> SampleRecord:
    return SampleRecord(
        index=index,
        label=label,
        prediction=label,
        verdict=Verdict.CERTIFIED if certified else Verdict.UNKNOWN,
        stage="interval",
        bound=0.5 if certified else None,
        seconds=1.0,
        digest=f"digest {index}" if digest is None else digest,
    )


def write(run: Path, certified: str, *, name: str = "linf-0.1", records: list[SampleRecord] = (), **settings: object):
    """A certification: one letter for each sample, y if it is certified."""
    files = RunFolder(run).certification(name)
    files.start({**SETTINGS, **settings}, resume=False)
    files.append([*(record(index, certified=letter == "y") for index, letter in enumerate(certified)), *records])
    return files


def test_files_are_compared(tmp_path):
    first, second = write(tmp_path / "a", "yyn"), write(tmp_path / "b", "ynn", network="cnn5")
    found = compare_certifications([first, second])
    assert found.observed == [1, 1, 1]
    assert found.names == (str(first.records), str(second.records))
    assert (found.indices, found.labels) == ((0, 1, 2), (1, 1, 1))


def test_two_certifications_of_one_run_are_compared(tmp_path):
    first, second = write(tmp_path / "a", "yyn"), write(tmp_path / "a", "ynn", name="other")
    assert compare_certifications([first, second], ["x", "y"]).observed == [1, 1, 1]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"dataset": "mnist"}, r"a.*jsonl has dataset 'digits' and .*b.*jsonl has 'mnist': give certifications of"),
        ({"norm": "l2"}, "has norm 'linf' and .* has 'l2'"),
        ({"eps": 0.2}, "has eps 0.1 and .* has 0.2"),
        ({"threat": "Linf(eps=0.1, clip=None)"}, "has threat "),
        ({"certified": "yn"}, "has 3 samples and .* has 2; .*b.*jsonl lacks sample 2: certify the same samples"),
        ({"records": [record(3, certified=True)]}, "has 3 samples and .* has 4; .*a.*jsonl lacks sample 3"),
        (
            {"certified": "yy", "records": [record(2, certified=True, digest="x")]},
            "sample 2 has another input or label in .*a.*jsonl than in .*b.*jsonl",
        ),
        ({"certified": "yy", "records": [record(2, certified=True, label=3)]}, "sample 2 has another input or label"),
        ({"certified": "yy", "records": [record(2, certified=True, digest="")]}, "sample 2 has no digest"),
    ],
)
def test_files_of_other_samples_or_regions_are_refused(tmp_path, other, said):
    first = write(tmp_path / "a", "yyn")
    second = write(tmp_path / "b", **{"certified": "yyy", **other})
    with pytest.raises(ValueError, match=said) as raised:
        compare_certifications([first, second])
    assert "\n" not in str(raised.value)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    first = write(tmp_path / "a", "yyn")
    with pytest.raises(FileNotFoundError, match=r"there is no file no\.jsonl"):
        compare_certifications([first, CertificationFiles(Path("no.jsonl"))])
    second = write(tmp_path / "b", "yyn")
    second.records.write_text(second.records.read_text().replace('"certified"', '"unknown"', 1))
    with pytest.raises(ValueError, match=r"b.*jsonl, line 1: not the record"):
        compare_certifications([first, second])


def test_a_path_names_the_certification_of_a_run_at_a_radius(tmp_path):
    at_1, at_2 = write(tmp_path / "a", "y"), write(tmp_path / "a", "y", name="linf-0.2", eps=0.2)
    assert certification_of(at_1.records) == at_1
    assert certification_of(tmp_path / "a", 0.2) == at_2
    with pytest.raises(ValueError, match=r"has 2 certifications, one is needed; it has linf-0.1, linf-0.2: certify"):
        certification_of(tmp_path / "a")
    with pytest.raises(ValueError, match=r"has 0 certifications at eps 0.3, one is needed; it has linf-0.1, linf-0.2"):
        certification_of(tmp_path / "a", 0.3)
    with pytest.raises(ValueError, match=r"has eps 0.1, not 0.3"):
        certification_of(at_1.records, 0.3)
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        certification_of(tmp_path / "none")


def test_tables_and_files(tmp_path):
    found = agreement([True, True, False], [True, False, False])
    counts, pairs = report.agreement.agreement_rows(found)
    assert counts[0] == ["certified by", "samples observed", "samples expected"]
    assert counts[1:] == [["0", "1", "1"], ["1", "1", "2"], ["2", "1", "1"]]
    assert pairs == [
        ["", "certified %", "a", "b"],
        ["a", "66.67", "1.000", "0.500"],
        ["b", "33.33", "0.500", "1.000"],
    ]
    assert report.agreement_markdown(found).startswith(
        "| certified by | samples observed | samples expected |\n| --- |"
    )
    assert report.agreement_csv(found).splitlines()[2] == f"1,1,{found.expected[1]}"
    report.write_difficulties(found, tmp_path / "new" / "hard.json")
    assert json.loads((tmp_path / "new" / "hard.json").read_text()) == found.difficulties()
    report.write_difficulties(found, tmp_path / "hard.csv")
    assert (tmp_path / "hard.csv").read_text() == (
        "index,label,certified,difficulty\n2,1,0,1.0\n1,1,1,0.5\n0,1,2,0.0\n"
    )
    with pytest.raises(ValueError, match=r"is neither a .csv nor a .json file"):
        report.write_difficulties(found, tmp_path / "hard.txt")
