"""What stages of a certification could not do: which raised, on how many samples, and with which message."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class StageFailedWarning(UserWarning):
    """A stage of the cascade raised an exception or gave NaN; samples that it could have decided may be unknown."""


@dataclass(frozen=True)
class Failure:
    """A stage that failed."""

    stage: str
    samples: int  # on which it failed
    message: str  # of the first of these samples

    def __str__(self) -> str:
        return f"{self.stage} on {self.samples} sample{'s' if self.samples > 1 else ''} ({self.message})"


def by_stage(failed: Iterable[Mapping[str, str]]) -> tuple[Failure, ...]:
    """The stages that failed, in the order of their first failure; `failed` has a message by stage for each sample."""
    messages: dict[str, list[str]] = {}
    for sample in failed:
        for stage, message in sample.items():
            messages.setdefault(stage, []).append(message)
    return tuple(Failure(stage, len(told), told[0]) for stage, told in messages.items())


def warn(failed: Sequence[Failure], *, stacklevel: int) -> None:
    """One StageFailedWarning about all of them; no warning where there are none."""
    if failed:
        told = "; ".join(map(str, failed))
        message = f"stages failed: {told}. No sample is certified or falsified by a failure: mend its cause, run again"
        warnings.warn(message, StageFailedWarning, stacklevel=stacklevel + 1)
