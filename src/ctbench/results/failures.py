"""The stages of a certification that failed: the stage, the number of samples, and the message."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class StageFailedWarning(UserWarning):
    """A stage of the cascade raised an exception or returned NaN; samples that it could decide may be unknown."""


@dataclass(frozen=True)
class Failure:
    """A stage that failed."""

    stage: str
    samples: int  # the number of samples on which it failed
    message: str  # for the first of these samples

    def __str__(self) -> str:
        return f"{self.stage} on {self.samples} sample{'s' if self.samples > 1 else ''} ({self.message})"


def by_stage(failed: Iterable[Mapping[str, str]]) -> tuple[Failure, ...]:
    """The stages that failed, in the order of their first failure; `failed` has messages by stage for each sample."""
    first, samples = dict[str, str](), Counter[str]()
    for messages in failed:
        for stage, message in messages.items():
            first.setdefault(stage, message)
            samples[stage] += 1
    return tuple(Failure(stage, samples[stage], message) for stage, message in first.items())


def warn(failed: Sequence[Failure], *, stacklevel: int) -> None:
    """One StageFailedWarning about all failures; no warning if there are no failures."""
    if failed:
        failures = "; ".join(map(str, failed))
        message = f"stages failed: {failures}. A failure certifies or falsifies no sample: mend its cause, run again"
        warnings.warn(message, StageFailedWarning, stacklevel=stacklevel + 1)
