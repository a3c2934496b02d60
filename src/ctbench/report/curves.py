"""Curves of runs: certified and adversarial accuracy over the radius, and over the seconds that a sample took.

    rows = radius_rows([Path("runs/mine")])
    OVER_RADII.draw(rows, "accuracy over the radius", Path("curves.png"))

Both are made of records alone. At a radius, "certified" is the share of samples that were proved, a lower bound of the
robust accuracy, and "adversarial" is the share that is right and was not falsified, an upper bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ctbench.report.drawings import Curves
from ctbench.results import Certification, CertificationFiles, RunFolder, SampleRecord, Verdict
from ctbench.results.certification import ROBUST_ACCURACIES
from ctbench.results.implications import ContradictionError, check, implied, relation
from ctbench.results.radii import RadiusFiles
from ctbench.results.runs import region_name

Rows = list[dict[str, Any]]
MOST = 200  # points of a curve over seconds
OVER_RADII = Curves(x="eps", values=ROBUST_ACCURACIES, series=("run",))
OVER_SECONDS = Curves(x="seconds", values=ROBUST_ACCURACIES, series=("run",), log_x=True, steps=True, marker="")


class NoSampleInCommonError(ValueError):
    """Certifications of a run at several radii have no sample in common, so there is no curve."""

    def __init__(self, folder: Path, norm: str, radii: Sequence[float]) -> None:
        self.at = f"{norm} {', '.join(f'{eps:g}' for eps in radii)}"
        self.reason = "these certifications have no sample in common"
        super().__init__(f"the certifications of {folder} at {self.at} have no sample in common")


def radius_rows(folders: Iterable[Path]) -> Rows:
    """Accuracies in percent at each radius of each run, and the natural accuracy at 0.

    The radii are those of the run's certifications, on the samples that all of them have in common, and those of its
    searches for radii, at each step of their curve. A sample that is open at a radius counts as what its verdicts at
    other radii imply.

    Raises:
        FileNotFoundError: a folder is not that of a run.
        NoSampleInCommonError: certifications of a run have no sample in common.
        ContradictionError: a sample is certified at a radius, and falsified at a smaller one.
        ValueError: a run has neither certifications nor searches, or a file is damaged.
    """
    return [row for path in folders for row in _radii_of(RunFolder(path))]


def radius_series(folder: RunFolder) -> list[RadiusSeries]:
    """The series of a run: of its certifications and of its searches for radii.

    Certifications at one radius, e.g. with two strengths of attack, are in series of their own, with what the names of
    their files add to the norm and the radius.
    """
    groups: dict[tuple[str, str], list[CertificationFiles]] = {}
    for files in folder.certifications():
        settings = files.read_settings()
        if isinstance(settings["eps"], int | float):  # not a radius for each feature
            groups.setdefault((settings.get("dataset", "-"), settings.get("norm", "-")), []).append(files)
    series = list[RadiusSeries]()
    for (dataset, norm), group in groups.items():
        by_name = _by_addition(group)
        series += [CertifiedSeries(folder, dataset, norm, *each) for each in by_name.items()]
    return [*series, *(SearchedSeries(folder, search) for search in folder.searches())]


def _by_addition(group: Sequence[CertificationFiles]) -> dict[str, tuple[CertificationFiles, ...]]:
    """The certifications by what their names add; all of them by "" if no two have the same radius."""
    settings = [files.read_settings() for files in group]
    if len({each["eps"] for each in settings}) == len(group):
        return {"": tuple(group)}
    series: dict[str, list[CertificationFiles]] = {}
    for files, each in zip(group, settings, strict=True):
        name, usual = files.records.stem, region_name(each.get("norm", "-"), each["eps"])
        addition = name.removeprefix(usual) if f"{name}-".startswith(f"{usual}-") else name
        series.setdefault(addition, []).append(files)
    return {name: tuple(files) for name, files in series.items()}


class RadiusSeries(ABC):
    """A certified and an adversarial curve of a run."""

    @property
    @abstractmethod
    def is_curve(self) -> bool:
        """Whether there may be several radii."""

    @abstractmethod
    def rows(self) -> Rows:
        """The rows of `radius_rows`."""


@dataclass(frozen=True)
class CertifiedSeries(RadiusSeries):
    """Certifications of one run at several radii.

    Args:
        folder: of the run.
        dataset, norm: of all certifications.
        addition: what the names of their files add to the norm and the radius, e.g. "-x".
        files: of the certifications; no two have the same radius.
    """

    folder: RunFolder
    dataset: str
    norm: str
    addition: str
    files: tuple[CertificationFiles, ...]

    @property
    def is_curve(self) -> bool:
        return len(self.files) > 1

    def rows(self) -> Rows:
        """A row for each radius, on the samples that all of them have in common.

        What a verdict implies at another radius counts there, as far as this is known (`implications.relation`).

        Raises:
            NoSampleInCommonError: there is none.
            ContradictionError: a sample is certified at a radius, and falsified at a smaller one.
        """
        counts, samples, natural = Counter[tuple[float, str]](), 0, 0
        relations = {files.read_settings()["eps"]: relation(files.read_settings()) for files in self.files}
        for by_eps in self._common():
            samples += 1
            natural += next(iter(by_eps.values())).right
            for eps, record in self._settled(by_eps, relations).items():
                counts[eps, "certified"] += record.verdict is Verdict.CERTIFIED
                counts[eps, "adversarial"] += record.right and record.verdict is not Verdict.FALSIFIED
        if not samples:
            raise NoSampleInCommonError(self.folder.path, self.norm, sorted(relations))
        points = {eps: tuple(counts[eps, kind] / samples for kind in ROBUST_ACCURACIES) for eps in sorted(relations)}
        name = ", ".join(filter(None, (self.folder.path.name, self.addition.strip("-"))))
        about = {"run": name, "setting": f"{self.dataset}, {self.norm}"}
        return _rows(about, {0.0: (natural / samples,) * 2} | points, samples)

    def _common(self) -> Iterator[dict[float, SampleRecord]]:
        """The records of each sample that all certifications have, by radius, ascending."""
        every = sorted(((files.read_settings()["eps"], files.open()) for files in self.files), key=itemgetter(0))
        common = reduce(np.intersect1d, (one.indices for _, one in every))
        for several in zip(*(one.only(common) for _, one in every), strict=True):
            if len({record.digest for record in several if record.digest}) <= 1:
                yield {eps: record for (eps, _), record in zip(every, several, strict=True)}

    def _settled(
        self, by_eps: Mapping[float, SampleRecord], relations: Mapping[float, object]
    ) -> dict[float, SampleRecord]:
        """The records of a sample, with what is implied at other radii in place of open ones."""
        settled = dict(by_eps)
        known = {eps: relations[eps] for eps, record in by_eps.items() if record.digest and relations[eps] is not None}
        for kind in set(known.values()):
            related = {eps: {by_eps[eps].index: by_eps[eps]} for eps in known if known[eps] == kind}
            try:
                check(related)
            except ContradictionError as error:
                raise ContradictionError(f"{self.folder.path}: {error}") from None
            for eps in related:
                if by_eps[eps].verdict is Verdict.UNKNOWN:
                    settled[eps] = implied(eps, related).get(by_eps[eps].index, by_eps[eps])
        return settled


@dataclass(frozen=True)
class SearchedSeries(RadiusSeries):
    """A search of one run for the radii of samples."""

    folder: RunFolder
    files: RadiusFiles

    @property
    def is_curve(self) -> bool:
        return True

    def rows(self) -> Rows:
        """A row for each radius at which an accuracy changes."""
        settings, radii = self.files.read_settings(), self.files.read()
        setting = f"{settings.get('dataset', '-')}, {settings['norm']}"
        points = {eps: (radii.certified_accuracy(eps), radii.adversarial_accuracy(eps)) for eps in radii.steps}
        return _rows({"run": f"{self.folder.path.name}, search", "setting": setting}, points, len(radii))


def _radii_of(folder: RunFolder) -> Rows:
    """The rows of one run."""
    rows = [row for series in radius_series(folder) for row in series.rows()]
    if not rows:
        folder.require()
        raise ValueError(
            f"{folder.path} has no certification: run ctbench certify with several --eps, or ctbench radius"
        )
    return rows


def _rows(about: dict[str, str], points: Mapping[float, tuple[float, ...]], samples: int) -> Rows:
    return [
        {**about, "eps": eps, "certified": 100 * certified, "adversarial": 100 * adversarial, "samples": samples}
        for eps, (certified, adversarial) in points.items()
    ]


def time_rows(folders: Iterable[Path], eps: float | None = None) -> Rows:
    """Accuracies in percent if each sample had only this many seconds, for each certification of each run.

    A sample that was decided at another radius counts with its seconds there.

    Args:
        folders: run folders.
        eps: only the certifications at this radius; None: all.

    Raises:
        FileNotFoundError: a folder is not that of a run.
        ValueError: a run has no certification, or none at this radius; or a file is damaged.
    """
    return [row for path in folders for row in _times_of(RunFolder(path), eps)]


def _times_of(folder: RunFolder, eps: float | None) -> Rows:
    chosen = [files for files in folder.certifications() if eps is None or files.read_settings()["eps"] == eps]
    if not chosen:
        folder.require()
        at = "" if eps is None else f" at eps {eps:g}"
        raise ValueError(f"{folder.path} has no certification{at}: run ctbench certify first")
    return [row for each in chosen for row in times_of(folder.path.name, each.read_settings(), each.open())]


def times_of(run: str, settings: Mapping[str, Any], records: Certification) -> Iterator[dict[str, Any]]:
    """The rows of `time_rows` for one certification: the name of its run, its settings and its records."""
    radius = settings["eps"] if isinstance(settings["eps"], int | float) else "by feature"
    about = {"run": run, "setting": f"{settings.get('dataset', '-')}, {settings.get('norm')} eps {radius}"}
    decided = np.fromiter(
        ((_seconds(r), r.verdict is Verdict.CERTIFIED) for r in records if r.verdict is not Verdict.UNKNOWN),
        dtype=[("seconds", np.float64), ("proved", np.bool_)],
    )
    decided.sort(order="seconds")
    proved = np.cumsum(decided["proved"])
    stride = max(1, len(decided) // MOST)
    for number in range(1, len(decided) + 1):
        if number % stride == 0 or number == len(decided):
            right = int(proved[number - 1])
            shares = {"certified": right / len(records), "adversarial": 1 - (number - right) / len(records)}
            percents = {name: 100 * share for name, share in shares.items()}
            yield {**about, "seconds": float(decided["seconds"][number - 1]), **percents, "samples": len(records)}


def _seconds(record: SampleRecord) -> float:
    """The seconds of all stages that looked at a sample, at the radius that decided it."""
    return record.seconds + (record.decided_seconds or 0.0)
