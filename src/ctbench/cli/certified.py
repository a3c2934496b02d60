"""A certification on the terminal. Without torch, because `ctbench merge` needs none."""

from __future__ import annotations

from collections.abc import Mapping

from ctbench.cli.options import wide_console
from ctbench.report import Grid
from ctbench.results import OUTCOMES, Certification, Verdict, fairness
from ctbench.results.checking import CLEAN
from ctbench.results.decimals import decimals


def show(certification: Certification, norm: str, eps: float) -> None:
    """Print the accuracies, and the verdicts and seconds of each stage, with a column for each reason of "unknown"."""
    finished = certification.finished
    decided, seconds = finished.outcomes_by_stage, certification.seconds_by_stage
    rows = [
        [stage, *(str(decided.get(stage, {}).get(outcome, 0)) for outcome in OUTCOMES), f"{seconds.get(stage, 0):.1f}"]
        for stage in dict.fromkeys((CLEAN, *seconds, *decided))
        if stage in decided or stage in seconds
    ]
    rows.append(["all", *map(str, finished.outcomes.values()), f"{certification.seconds:.1f}"])
    console = wide_console()
    console.print(Grid(headings=("stage", *OUTCOMES, "seconds"), rows=rows, total=True))
    console.print(
        f"{len(finished)} samples, {norm} eps {decimals(eps)}: natural {100 * finished.natural_accuracy:.2f} %, "
        f"adversarial {100 * finished.adversarial_accuracy:.2f} %, "
        f"certified {100 * finished.certified_accuracy:.2f} %, {certification.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if len(finished):
        kinds = list(finished.tally.kinds.elements())
        wrong = [kind.verdict is Verdict.MISCLASSIFIED for kind in kinds]
        falsified = [kind.verdict in (Verdict.MISCLASSIFIED, Verdict.FALSIFIED) for kind in kinds]
        unproved = [kind.verdict is not Verdict.CERTIFIED for kind in kinds]
        labels = [kind.label for kind in kinds]
        print(fairness.summary(labels, {"natural": wrong, "adversarial": falsified, "certified": unproved}))
    if (example := finished.tally.example) is not None:
        print(f"{finished.tally.reasons} samples stayed open, e.g. sample {example.index}: {example.reason}")
    if len(certification) > len(finished):
        print(
            f"{len(certification) - len(finished)} more samples were not decided in time: --resume continues with them"
        )


def show_radii(certifications: Mapping[float, Certification], norm: str) -> None:
    """Print a row for each radius: the accuracies, what is unknown, and how much was known from other radii."""
    rows = []
    for eps, certification in certifications.items():
        finished = certification.finished
        shares = (finished.natural_accuracy, finished.adversarial_accuracy, finished.certified_accuracy)
        counts = (finished.counts[Verdict.UNKNOWN], finished.tally.implied)
        cells = [*(f"{100 * share:.2f}" for share in shares), *map(str, counts), f"{certification.seconds:.1f}"]
        rows.append([decimals(eps), str(len(finished)), *cells])
    headings = ("eps", "samples", "natural %", "adversarial %", "certified %", "unknown", "by other radii", "seconds")
    wide_console().print(Grid(headings=headings, rows=rows, title=norm))
    missed = {eps: len(one) - len(one.finished) for eps, one in certifications.items()}
    if any(missed.values()):
        numbers = ", ".join(f"{number} at eps {eps:g}" for eps, number in missed.items() if number)
        print(f"not decided in time: {numbers} more samples; --resume continues with them")
