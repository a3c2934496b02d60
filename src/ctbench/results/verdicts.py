"""The possible results for a sample."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    CERTIFIED = "certified"  # proved right over the whole region
    FALSIFIED = "falsified"  # right at the clean input, wrong at a replayed point of the region
    UNKNOWN = "unknown"  # right at the clean input, and nothing was proved
    MISCLASSIFIED = "misclassified"  # wrong at the clean input


class Open(StrEnum):
    """Why a sample is unknown. If several reasons hold, the first one counts."""

    JOB_OVER = "job over"  # the time of the whole job ended before the time of the sample
    ERROR = "error"  # a stage failed: it raised an exception, or returned NaN
    TIME = "time"  # more time could have decided it
    UNDECIDED = "not decided"  # all stages have finished

    @staticmethod
    def first(*reasons: Open) -> Open:
        """The reason that counts."""
        return min(reasons, key=list(Open).index)


OUTCOMES = (  # the possible outcomes of a finished sample
    Verdict.CERTIFIED.value,
    Verdict.FALSIFIED.value,
    *(f"{Verdict.UNKNOWN} ({why})" for why in (Open.ERROR, Open.TIME, Open.UNDECIDED)),
    Verdict.MISCLASSIFIED.value,
)
