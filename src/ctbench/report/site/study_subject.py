"""A study of a report: its files, the trials that it has chosen, and what their final runs give on the test images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ctbench.report.comparison import setting_title
from ctbench.report.intervals import Spread
from ctbench.report.site.tables import Cell, Remark, count
from ctbench.results import CertificationFiles, RunFolder, Study, TrialRecord
from ctbench.results.runs import region_name
from ctbench.results.studies import TestedTrial

HELD_OUT = "held-out"
ACCURACIES = ("natural", "adversarial", "certified")
RECORDS_DIFFER = "records differ"
DIFFERENCE = "the records of final runs give other accuracies than study.json, e.g. if a run was certified again"
MEANS = "Means over the final runs of a choice on test images, ± half the width of a 95 % interval."
Key = tuple[str, str, float, str]  # data set, norm and radius for the order, and all in which rows of a table agree


@dataclass(frozen=True, kw_only=True)
class StudySubject:
    """A study of the report.

    Args:
        study: its files.
        name: in the menu.
        page: the name of its page.
        runs: the pages of its final runs, by their folders.
    """

    study: Study
    name: str
    page: str
    runs: Mapping[str, str]

    @property
    def chosen(self) -> list[ChosenTrial]:
        """Its chosen trials; a single one without a trial if nothing is chosen yet."""
        return [ChosenTrial(self, trial) for trial in self.study.chosen or (None,)]

    @cached_property
    def differences(self) -> dict[str, str]:
        """What the records of final runs say otherwise than study.json, in words, by the folders of the runs."""
        results = [result for result in self.study.results if "error" not in result]
        words = {str(result["folder"]): "; ".join(self._differences(result)) for result in results}
        return {folder: said for folder, said in words.items() if said}

    def _differences(self, result: Mapping[str, Any]) -> Iterator[str]:
        threat = self.study.content["recipe"]["threat"]
        for files in _certifications(RunFolder(self.study.path / result["folder"]), threat["name"], threat["eps"]):
            records = files.open()
            if len(records) != result["samples"]:
                yield f"{result['samples']} samples in study.json, {len(records)} in {files.records.name}"
            for kind in ACCURACIES:
                told, found = result[f"{kind}_accuracy"], getattr(records, f"{kind}_accuracy")
                if told != found:
                    yield f"{kind} {100 * told:.2f} % in study.json, {100 * found:.2f} % in {files.records.name}"


def _certifications(run: RunFolder, norm: str, eps: float) -> Iterator[CertificationFiles]:
    """The certifications at a norm and a radius on the data set of the one with the usual name, if this is there."""
    usual = run.certification(region_name(norm, eps))
    if not usual.records.is_file():
        return
    dataset = usual.read_settings().get("dataset")
    for files in run.certifications():
        settings = files.read_settings()
        if (settings.get("norm"), settings["eps"], settings.get("dataset")) == (norm, eps, dataset):
            yield files


@dataclass(frozen=True)
class ChosenTrial:
    """A chosen trial of a study; None if nothing is chosen yet."""

    subject: StudySubject
    trial: TrialRecord | None

    @property
    def content(self) -> Any:
        return self.subject.study.content

    @property
    def key(self) -> Key:
        """Rows with the same key are compared."""
        dataset, threat = self.content["recipe"]["dataset"]["name"], self.content["recipe"]["threat"]
        eps, settings = threat.get("eps"), self.content["settings"]
        same: list[Any] = [
            {name: value for name, value in threat.items() if name != "seed"},
            self.subject.study.protocol,
        ]
        same += [settings.get(name) for name in ("stages", "timeout", "samples")]
        radius = float(eps) if isinstance(eps, int | float) else float("inf")
        return dataset, threat["name"], radius, json.dumps(same, sort_keys=True)

    @property
    def title(self) -> str:
        """Of the table of this row."""
        recipe, settings = self.content["recipe"], self.content["settings"]
        threat, samples, timeout = recipe["threat"], settings.get("samples"), settings.get("timeout")
        parts = [
            setting_title(recipe["dataset"]["name"], threat["name"], threat.get("eps")),
            "" if self.subject.study.protocol == HELD_OUT else "chosen on test data",
            f"{samples} images" if samples else "",
            f"stages {settings['stages']}" if settings.get("stages") else "",
            f"{timeout:g} s for each image" if timeout else "",
        ]
        return ", ".join(filter(None, parts))

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """The results of its final runs that did not fail."""
        return [result for result in self._of_trial if "error" not in result]

    @property
    def _of_trial(self) -> list[dict[str, Any]]:
        every = self.subject.study.results
        return [result for result in every if self.trial is not None and result["trial"] == self.trial.trial]

    @property
    def runs(self) -> int:
        """How many final runs there are to be."""
        return int(self.content["settings"].get("seeds") or max(1, len(self._of_trial)))

    @property
    def complete(self) -> bool:
        """Whether all final runs have results."""
        return bool(self.results) and len(self.results) == self.runs

    def spread(self, accuracy: str) -> Spread | None:
        """The spread of an accuracy over its final runs, in percent."""
        return Spread.of([100 * result[f"{accuracy}_accuracy"] for result in self.results]) if self.results else None

    @property
    def mean(self) -> float | None:
        """The mean certified accuracy in percent; None unless all runs have results."""
        spread = self.spread("certified") if self.complete else None
        return None if spread is None else spread.mean

    @property
    def best(self) -> TestedTrial | None:
        """What a choice by test images would have taken; None if it is not known or would have been a front."""
        hindsight = self.subject.study.hindsight
        if hindsight is None or not hindsight.trials or self.subject.study.objective != "certified":
            return None
        return hindsight.best

    @property
    def runs_cell(self) -> Cell:
        """How many final runs there are, or remarks on them."""
        remarks = list(self._remarks())
        differences = self.subject.differences
        own = [f"{run['folder']}: {differences[run['folder']]}" for run in self.results if run["folder"] in differences]
        if own:
            word = RECORDS_DIFFER if remarks else f"{self.runs}, {RECORDS_DIFFER}"
            remarks.append(Remark(word, DIFFERENCE, "; ".join(own)))
        if not remarks:
            return count(self.runs)
        return Cell(text=", ".join(one.word for one in remarks), remarks=tuple(remarks))

    def _remarks(self) -> Iterator[Remark]:
        """Why the means are not those of all final runs."""
        failed = len(self._of_trial) - len(self.results)
        coming = self.runs - len(self._of_trial)
        if failed:
            yield Remark(f"{failed} of {self.runs} failed", "the means are those of the other runs")
        if coming:
            yield Remark(f"{coming} of {self.runs} to come", "the study is not finished")
