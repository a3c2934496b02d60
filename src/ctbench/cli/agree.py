"""`ctbench agree`: do several networks fail on the same samples?"""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench import report, zoo
from ctbench.cli.options import check_place, wide_console
from ctbench.results import Agreement, certification_of, compare_certifications
from ctbench.results.runs import names_of

SHOWN = 20  # indices of samples at most


def run(args: argparse.Namespace) -> None:
    if args.difficulty:
        check_place(args.difficulty)
    runs = [zoo.working_copy(run) for run in args.runs]
    certifications = [certification_of(run, args.eps) for run in runs]
    places = [files.records.resolve() for files in certifications]
    twice = next((files.records for k, files in enumerate(certifications) if places[k] in places[:k]), None)
    if twice:
        raise ValueError(f"{twice} is given twice: a certification agrees with itself, give each once")
    agreement = compare_certifications(certifications, names(runs))
    if args.difficulty:
        report.write_difficulties(agreement, args.difficulty)
    if args.csv:
        print(report.agreement_csv(agreement), end="")
    elif args.markdown:
        print(report.agreement_markdown(agreement))
    else:
        show(agreement)
        if args.difficulty:
            print(args.difficulty)


def names(paths: list[Path]) -> list[str]:
    """RUN for a run folder, RUN/NAME for its file certified/NAME.jsonl; whole paths if two of these are equal."""
    return names_of(paths, _name)


def _name(path: Path) -> str:
    if path.suffix != ".jsonl":
        return path.name
    return f"{path.parent.parent.name}/{path.stem}" if path.parent.name == "certified" else path.stem


def show(agreement: Agreement) -> None:
    """Print the tables, and the samples that no certification certifies."""
    console = wide_console()
    for table in report.agreement_tables(agreement):
        console.print(table)
    hard = agreement.uncertified
    more = ", ..." if len(hard) > SHOWN else ""
    listed = f": {', '.join(map(str, hard[:SHOWN]))}{more}" if hard else ""
    print(f"{len(hard)} of {len(agreement.indices)} samples are certified by none{listed}")
