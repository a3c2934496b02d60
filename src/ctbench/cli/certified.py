"""A certification on the terminal. Without torch, because `ctbench merge` needs none."""

from __future__ import annotations

from ctbench.cli.options import wide_console
from ctbench.report import Grid
from ctbench.results import OUTCOMES, Certification, Verdict, fairness
from ctbench.results.checking import CLEAN
from ctbench.results.radii import decimals


def show(certification: Certification, norm: str, eps: float) -> None:
    """Print the accuracies, and the verdicts and seconds of each stage, with a column for each reason of "unknown"."""
    finished = Certification.of(record for record in certification if record.finished)
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
        wrong = [record.verdict is Verdict.MISCLASSIFIED for record in finished]
        falsified = [record.verdict in (Verdict.MISCLASSIFIED, Verdict.FALSIFIED) for record in finished]
        unproved = [record.verdict is not Verdict.CERTIFIED for record in finished]
        labels = [record.label for record in finished]
        print(fairness.summary(labels, {"natural": wrong, "adversarial": falsified, "certified": unproved}))
    explained = [record for record in finished if record.reason]
    if explained:
        print(f"{len(explained)} samples stayed open, e.g. sample {explained[0].index}: {explained[0].reason}")
    if len(certification) > len(finished):
        print(
            f"{len(certification) - len(finished)} more samples were not decided in time: --resume continues with them"
        )
