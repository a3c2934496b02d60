"""What a record may say of its clean input, given what the network says there."""

from math import nan

import pytest

from ctbench.packs.claims import ClaimError
from ctbench.packs.predictions import check_output
from ctbench.packs.subject import CleanOutput
from ctbench.results import SampleRecord, Verdict

LABEL = 0


def output(verdict: str, prediction: int, sign: float, fits: float, *, is_finite: bool = True) -> CleanOutput:
    record = SampleRecord(
        index=5, label=LABEL, prediction=prediction, verdict=Verdict(verdict), stage="pgd", bound=None, seconds=0.0
    )
    return CleanOutput(record, sign, 3, is_finite, fits)


HONEST = {
    "certified": output("certified", LABEL, 1.0, 1.0),
    "the class is the label, by an interval that is too wide": output("certified", LABEL, 1.0, nan),
    "misclassified": output("misclassified", 3, -1.0, 1.0),
    "two wrong classes are greatest": output("misclassified", 3, -1.0, nan),
    "open": output("unknown", LABEL, 1.0, 1.0),
    "falsified at a tie": output("falsified", LABEL, 0.0, nan),
    "open, and the sign is not known": output("unknown", LABEL, nan, nan),
    "open at a tie, with the other class": output("unknown", 3, 0.0, nan),
    "logits are not finite": output("unknown", -1, nan, nan, is_finite=False),
}
FALSE = {
    "certified at a tie": output("certified", LABEL, 0.0, nan),
    "certified, and the sign is not known": output("certified", LABEL, nan, nan),
    "certified, but wrong": output("certified", LABEL, -1.0, nan),
    "misclassified at a tie": output("misclassified", 3, 0.0, nan),
    "misclassified, and the sign is not known": output("misclassified", 3, nan, nan),
    "misclassified, but right": output("misclassified", 3, 1.0, nan),
    "another wrong class": output("misclassified", 7, -1.0, -1.0),
    "falsified, but wrong": output("falsified", LABEL, -1.0, nan),
    "open, but wrong": output("unknown", LABEL, -1.0, nan),
    "open, but right, with another class": output("unknown", 3, 1.0, nan),
    "no prediction, but right": output("unknown", -1, 1.0, 1.0),
    "no prediction at a tie": output("unknown", -1, 0.0, nan),
    "no prediction, and the sign is not known": output("unknown", -1, nan, nan),
    "a prediction of logits that are not finite": output("unknown", LABEL, nan, nan, is_finite=False),
    "a proof of logits that are not finite": output("certified", LABEL, nan, nan, is_finite=False),
}


@pytest.mark.parametrize("case", HONEST)
def test_what_an_honest_record_may_say(case):
    check_output(HONEST[case])


@pytest.mark.parametrize("case", FALSE)
def test_what_no_honest_record_says(case):
    with pytest.raises(ClaimError, match="sample 5 is"):
        check_output(FALSE[case])
