"""Progress bars, all in one form. They go to standard error, so that standard output holds only results.

with progress_bars(quiet=args.quiet) as bars:
    task = bars.add_task("certify", total=100, text="")
    bars.update(task, advance=1, text="certified 1")
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column


def progress_bars(*, quiet: bool = False, done: ProgressColumn | None = None) -> Progress:
    """Bars with a title, the number of steps, the remaining time and a text; hidden unless stderr is a terminal.

    Every task needs a field `text`, which may be empty.

    Args:
        quiet: show nothing on a terminal either.
        done: the column that shows how much is done; None shows "3/10".
    """
    console = Console(stderr=True)
    rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)  # the text gets the rest of the width, and is cut
    columns = (
        TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, max_width=30)),
        BarColumn(bar_width=12),
        done or MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False, table_column=rest),
    )
    return Progress(*columns, console=console, expand=True, disable=quiet or not console.is_terminal)
