"""Whether records say what the network predicts at the clean inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ctbench.packs.claims import ClaimError
from ctbench.packs.subject import CleanOutput, Subject
from ctbench.results import SampleRecord, Verdict


def check_predictions(subject: Subject, records: Sequence[SampleRecord], total: str) -> str:
    """Compare the predictions of records with those of the network, and say how many are certain.

    Args:
        subject: the network and the images.
        records: the records.
        total: what they are, for the line, e.g. "40 samples".

    Raises:
        ClaimError: the network does not predict what a record says, or it is not known whether a verdict fits.
    """
    unknown = _unknown(subject.clean(records))
    if not unknown:
        return f"the predictions of all {total} are as said"
    return f"the predictions of {len(records) - unknown} of {total} are as said; rounding leaves {unknown} open"


def _unknown(outputs: Iterable[CleanOutput]) -> int:
    """The number of predictions that rounding leaves open."""
    count = 0
    for output in outputs:
        check_output(output)
        count += output.is_finite and math.isnan(output.fits)
    return count


def check_output(output: CleanOutput) -> None:
    """Raise ClaimError if a record does not fit what the network says at its clean input."""
    record, sign = output.record, output.sign
    is_wrong = record.verdict is Verdict.MISCLASSIFIED
    if not _predicts(output) or (sign > 0 and not record.right) or (sign < 0 and not is_wrong):
        raise ClaimError(
            f"sample {record.index} is {record.verdict} with prediction {record.prediction}, but the network "
            f"predicts {output.predicted if output.is_finite else -1} and its label is {record.label}"
        )
    if record.verdict in (Verdict.CERTIFIED, Verdict.MISCLASSIFIED) and abs(sign) != 1:
        why = "two logits are equal at the clean input"
        if math.isnan(sign):
            why = "rounding leaves open whether the network is right at the clean input"
        raise ClaimError(f"sample {record.index} is {record.verdict}, but {why}")


def _predicts(output: CleanOutput) -> bool:
    """Whether the network may predict what a record says: -1 where logits are not finite, and only there."""
    if not output.is_finite or output.record.prediction == -1:
        return not output.is_finite and output.record.prediction == -1
    return not output.fits < 0
