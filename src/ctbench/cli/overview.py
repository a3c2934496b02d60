"""What goes on in several runs at once: a table on a terminal, lines elsewhere. Read from their folders, without torch.

overview = Overview.of(len(runs), quiet=args.quiet)
with overview.shown():
    overview.begin(Step("a", "train", "epoch", folder.metrics, 20))
    overview.begin(Step("a", "certify", "sample", files.records, None))
    overview.end("a")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ctbench.results import CertificationFiles, Verdict, jsonl
from ctbench.results.decimals import decimals

LOOKS = 1.0  # looks at the files of the runs per second
HEADINGS = ("run", "at", "eps", "natural %", "robust %", "time left")
NOTHING = "-"


@dataclass(frozen=True)
class Step:
    """What a run is doing: its training, of which epochs are records, or its certification, of which samples are."""

    run: str
    title: str  # "train" or "certify"
    unit: str  # "epoch" or "sample"
    records: Path
    total: int | None  # None if the settings of the records say it

    @cached_property
    def _growing(self) -> jsonl.Growing:
        return jsonl.Growing(self.records)

    def done(self) -> list[jsonl.Record]:
        """The records of all epochs or samples so far, of each the last one."""
        key = "epoch" if self.unit == "epoch" else "index"
        return list({record[key]: record for record in self._growing.read()}.values())

    def cells(self) -> tuple[str, ...]:
        """A row of the table; its accuracies are those of training, or of the samples that are certified so far."""
        try:
            done, (total, eps) = self.done(), self._aim()
        except (OSError, ValueError) as error:  # the command that writes the files fails of it, and says so
            return self.run, f"{self.title}: {error}", *[NOTHING] * (len(HEADINGS) - 2)
        at = f"{self.title} {self.unit} {len(done)}{'' if total is None else f' of {total}'}"
        if not done:
            return self.run, at, *[NOTHING] * (len(HEADINGS) - 2)
        natural, robust = _of_training(done[-1]) if self.unit == "epoch" else _of_samples(done)
        eps = done[-1].get("eps", eps)
        radius, left = NOTHING if eps is None else decimals(eps, 4), NOTHING if total is None else _left(done, total)
        return self.run, at, radius, natural, robust, left

    def _aim(self) -> tuple[int | None, float | None]:
        """The number of records in the end, and the radius of a certification; None as long as they are not known."""
        files = CertificationFiles(self.records)
        if self.total is not None or not files.settings.is_file():
            return self.total, None
        return files.wanted, files.read_settings().get("eps")


@dataclass(eq=False)
class Overview:
    """The steps of several runs.

    Args:
        runs: the number of runs, as far as it is known.
        console: of the table, or of lines where it is no terminal.
    """

    runs: int
    console: Console
    steps: dict[str, Step] = field(default_factory=dict)  # by run: those that go on
    begun: dict[str, float] = field(default_factory=dict)  # by run: when its first step began
    ended: dict[str, bool] = field(default_factory=dict)  # by run: whether it is complete
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, runs: int, *, quiet: bool) -> Overview:
        return cls(runs, Console(stderr=True, quiet=quiet))

    def shown(self) -> AbstractContextManager[object]:
        """A context in which the table is on the screen, and follows the files."""
        if not self.console.is_terminal or self.console.quiet:
            return nullcontext()
        return Live(get_renderable=self.table, console=self.console, refresh_per_second=LOOKS, transient=True)

    def begin(self, step: Step, *, unfinished: int | None = None) -> None:
        """A run begins a step. If `unfinished` is given, this many runs have not ended, with this one."""
        with self.lock:
            first = step.run not in self.steps
            self.steps[step.run] = step
            self.begun.setdefault(step.run, time.monotonic())
            if unfinished is not None:
                self.runs = unfinished + len(self.ended)
        if first and not self.console.is_terminal:
            self._line(f"{step.run}: begins")

    def end(self, run: str, error: str = "", *, result: str = "complete") -> None:
        """A run has ended, with an error or else with a result, in a word or two."""
        with self.lock:
            self.steps.pop(run, None)
            self.ended[run] = not error
            begun = self.begun.pop(run, None)
        after = "" if begun is None else f" after {rounded_duration(time.monotonic() - begun)}"
        if error or not self.console.is_terminal:
            said = f"failed{after}: {error}" if error else f"{result}{after}"
            self._line(f"{run}: {said} ({self.counts()})")

    def counts(self) -> str:
        """How many runs are at work, waiting, complete and failed."""
        complete = sum(self.ended.values())
        numbers = {
            "at work": len(self.steps),
            "waiting": self.runs - len(self.steps) - len(self.ended),
            "complete": complete,
            "failed": len(self.ended) - complete,
        }
        return ", ".join(f"{number} {what}" for what, number in numbers.items())

    def table(self) -> Table:
        """The runs at work, a row each."""
        with self.lock:
            steps, counts = list(self.steps.values()), self.counts()
        table = Table(caption=counts, caption_justify="left", box=None, pad_edge=False)
        for heading in HEADINGS:
            text = heading in HEADINGS[:2]
            table.add_column(heading, justify="left" if text else "right", no_wrap=heading != "run", overflow="fold")
        for step in steps:
            table.add_row(*(cell.replace("[", r"\[") for cell in step.cells()))
        return table

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _of_training(epoch: Mapping[str, Any]) -> tuple[str, str]:
    """The natural and the robust accuracy after an epoch, in percent: on held-out images, if there are any."""
    held_out = "validation_" if "validation_natural_accuracy" in epoch else ""
    shares = (epoch.get(f"{held_out}{kind}_accuracy") for kind in ("natural", "robust"))
    natural, robust = (NOTHING if share is None else f"{100 * share:.2f}" for share in shares)
    return natural, robust


def _of_samples(done: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The shares of samples that are right, and certified, in percent."""
    right = sum(record["prediction"] == record["label"] for record in done)
    certified = sum(record["verdict"] == Verdict.CERTIFIED for record in done)
    return f"{100 * right / len(done):.2f}", f"{100 * certified / len(done):.2f}"


def _left(done: Sequence[Mapping[str, Any]], total: int) -> str:
    """The time that a step needs at the pace of its records, in words."""
    seconds = sum(record.get("seconds", 0.0) for record in done)
    return rounded_duration(seconds / len(done) * max(0, total - len(done)))


def rounded_duration(seconds: float) -> str:
    """Seconds as text: whole seconds below a minute, then minutes, then hours, with one decimal."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
