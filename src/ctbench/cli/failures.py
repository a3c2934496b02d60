"""How commands report failed stages of a certification: a table on standard error, and with --strict an exit status."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.table import Table

from ctbench.cli.options import wide_console
from ctbench.results import Failure, StageFailedWarning


@contextmanager
def without_warning() -> Iterator[None]:
    """Suppress the warning, in commands that show the table instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StageFailedWarning)
        yield


def tell(failed: Mapping[str, Sequence[Failure]], *, strict: bool, what: str = "run") -> None:
    """Show the stages that failed, if any. This is the last step of a command.

    Args:
        failed: the failures of each run, by its name. With only the name "", the table has no column of names.
        strict: whether failures are an error.
        what: the heading of the column of names.

    Raises:
        ValueError: `strict` is set, and a stage failed.
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
        raise ValueError(f"--strict, and stages failed ({stages}): fix the errors in the table, and certify again")
