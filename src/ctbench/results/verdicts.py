"""How a sample can end."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    CERTIFIED = "certified"  # proved right over the whole region
    FALSIFIED = "falsified"  # right at the clean input, wrong at a point of the region that was replayed
    UNKNOWN = "unknown"  # right at the clean input, and nothing proved
    MISCLASSIFIED = "misclassified"  # wrong at the clean input


class Open(StrEnum):
    """Why a sample is unknown. Where several hold, the first one counts."""

    JOB_OVER = "job over"  # the time of the whole job ended before the sample's own
    ERROR = "error"  # a stage failed: it raised, or gave NaN
    TIME = "time"  # more seconds could have told more
    UNDECIDED = "not decided"  # all stages have ended


OUTCOMES = (  # what a finished sample is counted as
    Verdict.CERTIFIED.value,
    Verdict.FALSIFIED.value,
    *(f"{Verdict.UNKNOWN} ({why})" for why in (Open.ERROR, Open.TIME, Open.UNDECIDED)),
    Verdict.MISCLASSIFIED.value,
)
