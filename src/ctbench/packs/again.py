"""Samples of records that are decided again: proofs, counterexamples that were not kept, and attacks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctbench.packs.claims import ClaimError
from ctbench.packs.subject import Subject
from ctbench.regions import Threat
from ctbench.results import SampleRecord, Verdict
from ctbench.verify import Falsify, certify


@dataclass(frozen=True, eq=False, kw_only=True)
class Again:
    """How samples are decided again.

    Args:
        samples: the number of samples of each file and verdict, chosen at random; 0 for none.
        seed: of the choice.
        timeout: seconds for each sample.
    """

    samples: int
    seed: int
    timeout: float | None

    def chosen(self, indices: Sequence[int], about: str) -> list[int]:
        """Some of the indices, ascending."""
        count = min(self.samples, len(indices))
        return sorted(random.Random(f"{self.seed} {about}").sample(list(indices), count))


def prove_again(
    subject: Subject, threat: Threat, records: Sequence[SampleRecord], again: Again
) -> Counter[tuple[Verdict, Verdict]]:
    """Certify samples again in double precision, and compare the verdicts.

    Returns:
        How often each verdict of a record was followed by each verdict now.

    Raises:
        ClaimError: a certified sample is not certified now, or a falsified one is.
    """
    if not records:
        return Counter()
    x, y = subject.batch([record.index for record in records])
    results = certify(subject.double, x, y, threat, timeout=again.timeout, seed=again.seed)
    for record, result in zip(records, results, strict=True):
        said, now = record.verdict, result.verdict
        if said is Verdict.CERTIFIED and now is Verdict.UNKNOWN:
            raise ClaimError(
                f"sample {record.index} is certified, but this was not proved again ({result.reason}): give more time"
            )
        if (said is Verdict.CERTIFIED) != (now is Verdict.CERTIFIED):
            raise ClaimError(f"sample {record.index} is {said} in the records, but it is {now}")
    return Counter((record.verdict, result.verdict) for record, result in zip(records, results, strict=True))


def attack_again(subject: Subject, threat: Threat, indices: Sequence[int], again: Again) -> int:
    """Attack samples that no record decides, and return the number of those with a counterexample."""
    if not indices:
        return 0
    x, y = subject.batch(indices)
    results = certify(subject.double, x, y, threat, stages=[Falsify()], timeout=again.timeout, seed=again.seed)
    return results.counts[Verdict.FALSIFIED]
