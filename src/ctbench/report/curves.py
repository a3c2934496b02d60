"""Curves of runs: certified and adversarial accuracy over the radius, and over the seconds that a sample took.

    rows = radius_rows([Path("runs/mine")])
    OVER_RADII.draw(rows, "accuracy over the radius", Path("curves.png"))

Both are made of records alone. At a radius, "certified" is the share of samples that were proved, a lower bound of the
robust accuracy, and "adversarial" is the share that is right and was not falsified, an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ctbench.report.drawings import Curves
from ctbench.results import Certification, Radii, RunFolder, SampleRecord, Verdict
from ctbench.results.certification import ROBUST_ACCURACIES

Rows = list[dict[str, Any]]
MOST = 200  # points of a curve over seconds
OVER_RADII = Curves(x="eps", values=ROBUST_ACCURACIES, series=("run",))
OVER_SECONDS = Curves(x="seconds", values=ROBUST_ACCURACIES, series=("run",), log_x=True, steps=True, marker="")


def radius_rows(folders: Iterable[Path]) -> Rows:
    """Accuracies in percent at each radius of each run, and the natural accuracy at 0.

    The radii are those of the run's certifications, on the samples that all of them have in common, and those of its
    searches for radii, at each step of their curve.

    Raises:
        FileNotFoundError: a folder is not that of a run.
        ValueError: a run has neither, its certifications have no sample in common, or a file is damaged.
    """
    return [row for path in folders for row in _radii_of(RunFolder(path))]


def _radii_of(folder: RunFolder) -> Rows:
    groups: dict[tuple[str, str], dict[float, Certification]] = {}
    for files in folder.certifications():
        settings = files.read_settings()
        if isinstance(settings["eps"], int | float):  # not a radius for each feature
            setting = settings.get("dataset", "-"), settings.get("norm", "-")
            groups.setdefault(setting, {})[settings["eps"]] = files.open()
    rows = [row for setting, group in groups.items() for row in _of_certifications(folder, *setting, group)]
    for search in folder.searches():
        settings = search.read_settings()
        rows += _of_search(folder, settings.get("dataset", "-"), settings["norm"], search.read())
    if not rows:
        folder.require()
        raise ValueError(
            f"{folder.path} has no certification: run ctbench certify with several --eps, or ctbench radius"
        )
    return rows


def _of_certifications(folder: RunFolder, dataset: str, norm: str, group: dict[float, Certification]) -> Rows:
    """A row for each radius, on the samples that all of them have in common."""
    common = reduce(np.intersect1d, (one.indices for one in group.values()))
    if not len(common):
        radii = ", ".join(f"{eps:g}" for eps in sorted(group))
        raise ValueError(f"the certifications of {folder.path} at {norm} {radii} have no sample in common")
    chosen = {eps: one.only(common) for eps, one in sorted(group.items())}
    about = {"run": folder.path.name, "setting": f"{dataset}, {norm}"}
    first = next(iter(chosen.values()))
    points = {eps: (one.certified_accuracy, one.adversarial_accuracy) for eps, one in chosen.items()}
    return _rows(about, {0.0: (first.natural_accuracy,) * 2} | points, len(common))


def _of_search(folder: RunFolder, dataset: str, norm: str, radii: Radii) -> Rows:
    about = {"run": f"{folder.path.name}, search", "setting": f"{dataset}, {norm}"}
    points = {eps: (radii.certified_accuracy(eps), radii.adversarial_accuracy(eps)) for eps in radii.steps}
    return _rows(about, points, len(radii))


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
