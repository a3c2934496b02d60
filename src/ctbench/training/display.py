"""How a run is shown to a person: bars on a terminal, a line for each epoch elsewhere, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from ctbench.progress import progress_bars


@dataclass(frozen=True)
class Display:
    """Shows a run. Without a terminal `bars` is None, and only whole epochs are shown."""

    console: Console
    epochs: int
    steps: int
    bars: Progress | None
    tasks: tuple[TaskID, TaskID] | None

    def step(self, done: int, **shown: float) -> None:
        if self.bars and self.tasks:
            self.bars.update(self.tasks[1], completed=done, text=_short(shown))

    def epoch(self, metrics: dict[str, Any]) -> None:
        chosen = {name: metrics[name] for name in SHOWN if name in metrics}
        if self.bars and self.tasks:
            self.bars.update(self.tasks[0], completed=metrics["epoch"], text=_short(chosen))
            return
        text = _listed(chosen)
        self.console.print(f"epoch {metrics['epoch']}/{self.epochs}  {text}", highlight=False, soft_wrap=True)


SHOWN = (  # the accuracies of validation first: a narrow terminal cuts the end
    "validation_natural_accuracy",
    "validation_robust_accuracy",
    "loss",
    "natural_accuracy",
    "robust_accuracy",
    "eps",
    "seconds",
)


def _listed(shown: Mapping[str, float]) -> str:
    """Names and numbers, e.g. "robust accuracy 0.91  loss 0.3"."""
    return "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items())


def _short(shown: Mapping[str, float]) -> str:
    """The same for a bar, in which there is less room, e.g. "robust 0.91  loss 0.3"."""
    return _listed(shown).replace(" accuracy", "")


@contextmanager
def display(title: str, *, epochs: int, steps: int, done: int, quiet: bool) -> Iterator[Display]:
    """Show a run of `epochs` times `steps`, after `done` epochs of an earlier process. All goes to standard error."""
    with progress_bars(quiet=quiet) as bars:
        if bars.disable:
            yield Display(Console(stderr=True, quiet=quiet), epochs, steps, None, None)
            return
        tasks = (
            bars.add_task(title, total=epochs, completed=done, text=""),
            bars.add_task("step", total=steps, text=""),
        )
        yield Display(bars.console, epochs, steps, bars, tasks)
