"""How commands tell that stages of a certification failed: a table on standard error, and with --strict a status."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.table import Table

from ctbench.cli.options import wide_console
from ctbench.results import Failure, StageFailedWarning


def add_strict(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--strict", action="store_true", help="end with status 2 where a stage failed, when all results are written"
    )


@contextmanager
def without_warning() -> Iterator[None]:
    """For a command, which shows the table in place of the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StageFailedWarning)
        yield


def tell(failed: Mapping[str, Sequence[Failure]], *, strict: bool, what: str = "run") -> None:
    """Show the stages that failed, if any; the last that a command does.

    Args:
        failed: the failures of each run, by its name; of one without a name the table shows none.
        strict: whether failures are an error.
        what: the heading over the names.

    Raises:
        ValueError: strict is set, and a stage failed.
    """
    lines = [(name, failure) for name, failures in failed.items() for failure in failures]
    if not lines:
        return
    named = any(failed)
    table = Table(*([what] if named else []), "stage that failed", "samples", "first message")
    for name, failure in lines:
        cells = (failure.stage, str(failure.samples), failure.message)
        table.add_row(*([name] if named else []), *(cell.replace("[", r"\[") for cell in cells))
    wide_console(stderr=True).print(table)
    if strict:
        stages = ", ".join(dict.fromkeys(failure.stage for _, failure in lines))
        raise ValueError(f"--strict, and stages failed ({stages}): mend what the table names, and certify again")
