"""What goes on in several runs at once: bars on a terminal, lines elsewhere. Read from their folders, without torch."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from ctbench.progress import progress_bars
from ctbench.results import CertificationFiles

EVERY = 30.0  # seconds between two lines about a step where there is no terminal


@dataclass(frozen=True)
class Step:
    """What a run is doing: its training, of which epochs are records, or its certification, of which samples are."""

    run: str
    title: str  # "train" or "certify"
    unit: str  # "epoch" or "sample"
    records: Path
    total: int | None  # None if the settings of the records say it
    began: float = field(default_factory=time.monotonic)

    def standing(self) -> tuple[int, int | None]:
        """The number of records so far, and in the end."""
        done = self.records.read_bytes().count(b"\n") if self.records.is_file() else 0
        files = CertificationFiles(self.records)
        total = self.total
        if total is None and files.settings.is_file():
            total = files.wanted
        return (done, None) if total is None else (min(done, total), total)


@dataclass(frozen=True)
class Overview:
    """The steps of several runs.

    Args:
        runs: the number of runs.
        bars: on a terminal.
        console: of lines, elsewhere.
    """

    runs: int
    bars: Progress
    console: Console
    steps: dict[str, Step] = field(default_factory=dict)  # by run: those that go on
    tasks: dict[str, TaskID] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)  # by run: when the last line was printed
    finished: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, runs: int, *, quiet: bool) -> Overview:
        return cls(runs, progress_bars(quiet=quiet), Console(stderr=True, quiet=quiet))

    def shown(self) -> AbstractContextManager[object]:
        """A context in which the bars are on the screen."""
        if self.bars.disable:
            return nullcontext()
        self.tasks[""] = self.bars.add_task("runs", total=self.runs, text="")
        return self.bars

    def begin(self, step: Step) -> None:
        """A run begins a step."""
        with self.lock:
            self.steps[step.run], self.told[step.run] = step, step.began
            if not self.bars.disable:
                self._end_bar(step.run)
                self.tasks[step.run] = self.bars.add_task(f"{step.run} {step.title}", total=step.total, text="")
        self._line(f"{step.run}: {step.title}")

    def end(self, run: str, message: str = "") -> None:
        """A run has ended, with an error if there is a message."""
        with self.lock:
            step = self.steps.pop(run, None)
            self.finished.append(run)
            if not self.bars.disable:
                self._end_bar(run)
                self.bars.update(self.tasks[""], completed=len(self.finished))
        seconds = "" if step is None else f" after {duration(time.monotonic() - step.began)} of {step.title}"
        said = f"failed{seconds}: {message}" if message else "finished"
        self._line(f"{run}: {said} ({len(self.finished)} of {self.runs} runs)")

    def look(self) -> None:
        """Show how far all steps are now."""
        with self.lock:
            steps = list(self.steps.values())
        for step in steps:
            done, total = step.standing()
            if not self.bars.disable:
                with self.lock:
                    if self.steps.get(step.run) is step:
                        self.bars.update(self.tasks[step.run], completed=done, total=total, text=f"{step.unit}s")
            elif total and time.monotonic() - self.told[step.run] >= EVERY:
                self.told[step.run] = time.monotonic()
                self._line(f"{step.run}: {step.title}, {step.unit} {done} of {total}{_left(step, done, total)}")

    def _end_bar(self, run: str) -> None:
        if run in self.tasks:
            self.bars.remove_task(self.tasks.pop(run))

    def _line(self, text: str) -> None:
        if self.bars.disable:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _left(step: Step, done: int, total: int) -> str:
    """The time that a step needs at its pace so far, in words."""
    if not done:
        return ""
    return f", about {duration((time.monotonic() - step.began) / done * (total - done))} left"


def duration(seconds: float) -> str:
    """Seconds below a minute, minutes above."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
