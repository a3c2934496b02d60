"""Comparison of runs: one row for each certification, read from the files of the run folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ctbench.report.formats import as_csv, as_latex, as_markdown
from ctbench.report.grid import NOTHING, Grid
from ctbench.results import OUTCOMES, Attacked, Certification, Failure, RunFolder, Verdict, jsonl, read_attacked
from ctbench.results.decimals import decimals
from ctbench.results.runs import method_name, names_of


@dataclass(frozen=True, kw_only=True)
class Row:
    run: str
    dataset: str
    network: str
    method: str
    norm: str = "-"
    eps: float | list[Any] | None  # the radius, or nested lists with a radius for each feature
    certification: Certification | None  # None if the run has not been certified
    training_seconds: float | None
    attacked: Attacked | None = None  # what attacks found, if there were any
    wanted: int | None = None  # the number of samples that were to be certified, if the settings say it
    efforts: tuple[Mapping[str, Any], ...] = ({},)  # the stages and the time limit of each attempt, the last one now
    threat: str = ""  # the threat model of the certification, as text
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the recipe, by their paths
    selected_on_test: bool = False  # whether the weights were selected by their accuracy on the test images
    seed: Any = None  # of the recipe

    @property
    def named_method(self) -> str:
        """The method, with a mark if the weights were selected on test data."""
        return f"{self.method} (selected on test data)" if self.selected_on_test else self.method

    @property
    def attack(self) -> str:
        """The strength of the attacks, if the certification has another one than that of its stages, otherwise ""."""
        return str(self.parameters.get("attack", ""))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed."""
        return self.certification.failures if self.certification else ()

    @property
    def unfinished(self) -> str:
        """How many samples are decided, or had their time in the last attempt, e.g. "40 of 100"; "" if all."""
        if self.certification is None:
            return ""
        again = sum(number for attempt, number in self._unknown.items() if attempt < len(self.efforts) - 1)
        done, wanted = len(self.certification) - again, self.wanted or len(self.certification)
        return f"{done} of {wanted}" if done < wanted else ""

    @property
    def bounds_only(self) -> bool:
        """Whether there are unknown samples for which no stage searched until they were decided."""
        return any(_tries_once(self.efforts[attempt]) for attempt, number in self._unknown.items() if number)

    @property
    def verification(self) -> dict[str, str]:
        """What else certifications that are averaged have in common: threat model, stages and time limit."""
        return {"threat": self.threat} | {name: repr(value) for name, value in self.efforts[-1].items()}

    @cached_property
    def samples(self) -> str:
        """A digest of all samples: their places, inputs and labels; of places alone if an input is not known."""
        assert self.certification is not None, "only a certification has samples"
        records = [(record.index, record.digest, record.label) for record in self.certification]
        known = all(digest for _, digest, _ in records)
        return hashlib.sha256(repr(records if known else [index for index, _, _ in records]).encode()).hexdigest()

    @property
    def _unknown(self) -> Mapping[int, int]:
        """The numbers of unknown samples by the attempt that left them so."""
        return self.certification.tally.attempts if self.certification else {}

    def cells(self) -> list[str]:
        job = self.certification
        shares = [job.natural_accuracy, job.adversarial_accuracy, job.certified_accuracy] if job else [None] * 3
        return [
            self.run,
            self.dataset,
            self.network,
            self.named_method,
            self.norm,
            shown_radius(self.eps),
            self.unfinished or (str(len(job)) if job else "-"),
            *("-" if share is None else f"{100 * share:.2f}" for share in shares),
            *(str(job.outcomes[outcome]) if job else "-" for outcome in UNKNOWN),
            ", ".join(failure.stage for failure in self.failures) or "-",
            f"{100 * self.attacked.adversarial_accuracy:.2f} of {len(self.attacked)}" if self.attacked else "-",
            duration(self.training_seconds),
            duration(job.seconds if job else None),
        ]


UNKNOWN = tuple(outcome for outcome in OUTCOMES if outcome.startswith(Verdict.UNKNOWN))
HEADINGS = (
    "run",
    "data",
    "network",
    "method",
    "norm",
    "eps",
    "samples",
    "natural %",
    "adversarial %",
    "certified %",
    *UNKNOWN,
    "failed stages",
    "attacked %",
    "train",
    "certify",
)
NAMED = ("dataset", "network", "method")  # parts of a recipe whose names have columns of their own
TOLD = ("name", "source", "published", "seed")  # fields of a recipe that are no hyper-parameters
DISCREPANCIES = ("natural discrepancy", "attacked discrepancy")  # of the attacked samples, if there are any
TEXTS = 5  # the first columns hold text, the others numbers
TRY_ONCE = ("Bound(", "Falsify(")  # how the descriptions of stages begin that do not search


def _tries_once(effort: Mapping[str, Any]) -> bool:
    """Whether all stages try each sample once."""
    stages = effort.get("stages")
    return isinstance(stages, list) and all(str(stage).startswith(TRY_ONCE) for stage in stages)


def rows(folders: Iterable[Path]) -> list[Row]:
    """The rows of some run folders, in order; a run with several certifications has several rows.

    They are named by the last parts of their paths, or by the whole paths if two runs would have the same name.

    Raises:
        FileNotFoundError: a folder does not exist, is a file, or holds neither a run nor a certification.
        ValueError: a file in it is damaged or was edited.
    """
    paths = [Path(path) for path in folders]
    named = zip(paths, names_of(paths), strict=True)
    return [row for path, name in named for row in rows_of(RunFolder(path), name)]


def rows_of(folder: RunFolder, name: str) -> list[Row]:
    """The rows of one run, with this name: one for each of its certifications in their order, or one without any."""
    certifications = folder.certifications()
    if not certifications:
        folder.require()
    trained = _names(folder.recipe)
    about: dict[str, Any] = {
        "run": name,
        "method": trained["method"],
        "training_seconds": _training_seconds(folder.metrics),
        "parameters": _parameters(folder.recipe),
        "selected_on_test": trained["select"] == "test",
        "seed": trained["seed"],
    }
    if not certifications:
        names = {part: trained[part] for part in ("dataset", "network")}
        return [Row(**about, **names, eps=None, certification=None)]
    rows = []
    for files in certifications:
        settings = files.read_settings()
        names = {part: settings.get(part, "-") for part in ("dataset", "network", "norm")}
        selected = about["selected_on_test"] or settings.get("selected_on") == "test"  # as of a study, by its settings
        stronger = {"attack": settings["attack"]} if "attack" in settings else {}  # of --attack-steps, -restarts
        attacked = _attacked(folder, settings, names["dataset"] if trained["dataset"] == "-" else trained["dataset"])
        rows.append(
            Row(
                **about | {"parameters": {**about["parameters"], **stronger}, "selected_on_test": selected},
                **names,
                eps=settings.get("eps"),
                certification=files.open(),
                attacked=attacked,
                wanted=files.wanted,
                efforts=tuple(files.attempts),
                threat=str(settings.get("threat", "")),
            )
        )
    return rows


def _names(recipe: Path) -> dict[str, Any]:
    """The names of the data set, network and method of a recipe, "-" if there is no recipe; its selection and seed."""
    content = jsonl.read_json(recipe) if recipe.exists() else {}
    parts = ("dataset", "network", "method")
    if not isinstance(content, dict) or not all(isinstance(content.get(part, {}), dict) for part in parts):
        raise ValueError(
            f"{recipe} is not a recipe, an object with {', '.join(parts)}: restore the file, or leave this run out"
        )
    own = content.get("network", {}).get("module")  # of a module of your own, the class
    return (
        {part: str(content.get(part, {}).get("name", "-")) for part in parts}
        | {"method": method_name(content.get("method", {}))}
        | ({"network": str(own).rpartition(".")[2]} if own else {})
        | {"select": content.get("select", "-"), "seed": content.get("seed")}
    )


def setting_title(dataset: str, norm: str, eps: float | list[Any] | None) -> str:
    """A data set, a norm and a radius, as a heading."""
    return f"{dataset}, {norm}, eps {shown_radius(eps)}"


def shown_radius(eps: float | list[Any] | None) -> str:
    """A radius in a table."""
    if eps is None:
        return "-"
    return "by feature" if isinstance(eps, list) else decimals(eps, 4)


def _attacked(folder: RunFolder, certified: dict[str, Any], own: str) -> Attacked | None:
    """The results of attacks on the certified network, data and regions, from the file with the most records.

    Settings that do not name their data are of the run's own data, `own`.
    """
    results = []
    for path in folder.attacks():
        settings, attacked = jsonl.read_json(path), read_attacked(path.with_suffix(".jsonl"))
        if not isinstance(settings, dict):
            raise ValueError(f"{path} is not an object: remove both files, and run ctbench attack again")
        settings = {"dataset": own, **settings}
        of_same = ("network_digest", "threat", "dataset")
        if attacked and all(settings.get(name) == certified.get(name) for name in of_same):
            results.append(attacked)
    lowest = sorted(results, key=lambda attacked: attacked.adversarial_accuracy)
    return max(lowest, key=len, default=None)  # the lowest among equal numbers


def table(rows: Iterable[Row]) -> Grid:
    """The rows as a table for a terminal."""
    headings, cells = with_differences(list(rows))
    return Grid(headings=headings, rows=cells, texts=TEXTS)


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    return as_markdown(*with_differences(list(rows)), texts=range(TEXTS))


def latex(rows: Iterable[Row]) -> str:
    """The rows as a LaTeX table for the package booktabs."""
    return as_latex(*with_differences(list(rows)), texts=range(TEXTS))


def csv_lines(rows: Iterable[Row]) -> str:
    """The rows as CSV, with plain seconds instead of durations, and nothing where there is no value."""
    rows = list(rows)
    headings, cells = with_differences(rows)
    for row, line in zip(rows, cells, strict=True):
        line[headings.index("train")] = _plain(row.training_seconds)
        line[headings.index("certify")] = _plain(row.certification.seconds if row.certification else None)
        line[:] = ["" if cell == NOTHING else cell for cell in line]
    plain = {"train": "training seconds", "certify": "certification seconds"}
    return as_csv([plain.get(heading, heading) for heading in headings], cells)


def _plain(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6g}"


def with_differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, with a column for each hyper-parameter of the recipes that differs between rows.

    If a run was attacked, there are also its accuracy discrepancies (`ctbench.analyses.fairness`). A hyper-parameter
    that a row does not have, e.g. of another method, is no difference.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for path, value in row.parameters.items():
            values.setdefault(path, []).append(value)
    different = [path for path, several in values.items() if any(value != several[0] for value in several)]
    fairness = DISCREPANCIES if any(row.attacked for row in rows) else ()
    cells = [
        [
            *row.cells(),
            *(_discrepancies(row.attacked) if fairness else ()),
            *(_parameter(row.parameters.get(path)) for path in different),
        ]
        for row in rows
    ]
    return [*HEADINGS, *fairness, *different], cells


def _discrepancies(attacked: Attacked | None) -> list[str]:
    if attacked is None:
        return ["-" for _ in DISCREPANCIES]
    return [f"{share:.3f}" for share in (attacked.natural_discrepancy, attacked.robust_discrepancy)]


def _parameter(value: Any) -> str:
    if value is None:
        return "-"
    return decimals(value, 4) if isinstance(value, float) else str(value)


def _parameters(recipe: Path) -> dict[str, Any]:
    """The numbers and texts of a recipe by their paths, e.g. "optimizer.lr", without what other columns tell."""
    content = jsonl.read_json(recipe) if recipe.exists() else {}
    return dict(_flat({name: value for name, value in content.items() if name not in TOLD}, ""))


def _flat(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for name, value in part.items():
            if (path, name) not in [(kind, "name") for kind in NAMED]:
                yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        yield path, tuple(part) if isinstance(part, list) else part


def _training_seconds(metrics: Path) -> float | None:
    """The sum over all epochs; None if there are no epochs."""
    times = [epoch.get("seconds", 0.0) for epoch in jsonl.read(metrics)]
    for seconds in times:
        if not isinstance(seconds, int | float):
            raise ValueError(f"{metrics}: seconds is {seconds!r}, it must be a number: remove this line")
    return sum(times) if times else None


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
