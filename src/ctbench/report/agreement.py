"""Tables of the agreement of several certifications: observed and expected counts, and correlations of pairs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from ctbench.files import write_whole
from ctbench.report.grid import Grid
from ctbench.results.agreement import Agreement

COUNTS = ("certified by", "samples observed", "samples expected")
Rows = list[list[str]]  # a heading, then the lines


def agreement_rows(agreement: Agreement) -> tuple[Rows, Rows]:
    """The two tables: the samples that 0 ... m certifications certify, and the phi coefficient of each pair.

    Expected counts are rounded to whole samples, as in CTBench's Tables 2, 9 and 10. The second table begins with the
    certified accuracy of each certification, in percent.
    """
    counts = [list(COUNTS)]
    for times, (observed, expected) in enumerate(zip(agreement.observed, agreement.expected, strict=True)):
        counts.append([str(times), str(observed), f"{expected:.0f}"])
    pairs = [["", "certified %", *agreement.names]]
    for name, accuracy, line in zip(agreement.names, agreement.accuracies, agreement.correlations, strict=True):
        pairs.append([name, f"{100 * accuracy:.2f}", *("-" if phi is None else f"{phi:.3f}" for phi in line)])
    return counts, pairs


def agreement_tables(agreement: Agreement) -> tuple[Grid, Grid]:
    """The two tables for a terminal."""
    titles = ("how many certify a sample", "phi coefficients")
    first, second = (
        Grid(title=title, headings=heading, rows=lines)
        for title, (heading, *lines) in zip(titles, agreement_rows(agreement), strict=True)
    )
    return first, second


def agreement_markdown(agreement: Agreement) -> str:
    """The two tables as Markdown, with an empty line between them."""
    texts = []
    for heading, *lines in agreement_rows(agreement):
        rule = ["---", *["---:"] * (len(heading) - 1)]
        texts.append("\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines)))
    return "\n\n".join(texts)


def agreement_csv(agreement: Agreement) -> str:
    """The two tables as CSV, with an empty line between them; expected counts and coefficients are not rounded."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COUNTS)
    out.writerows(zip(range(len(agreement.names) + 1), agreement.observed, agreement.expected, strict=True))
    out.writerow([])
    out.writerow(["", "certified", *agreement.names])
    for name, accuracy, line in zip(agreement.names, agreement.accuracies, agreement.correlations, strict=True):
        out.writerow([name, accuracy, *line])
    return text.getvalue()


def write_difficulties(agreement: Agreement, path: Path) -> None:
    """Write the difficulty of each sample, the hardest first, as .csv or .json: see `Agreement.difficulties`.

    Raises:
        ValueError: the name ends in neither.
    """
    samples = agreement.difficulties()
    if path.suffix == ".json":
        content = json.dumps(samples, indent=2) + "\n"
    elif path.suffix == ".csv":
        text = io.StringIO()
        out = csv.DictWriter(text, list(samples[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(samples)
        content = text.getvalue()
    else:
        raise ValueError(f"{path} is neither a .csv nor a .json file: choose a name that ends in one of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.encode())
