"""Do networks fail on the same samples? The certifications of several networks on the same samples, compared.

    c_i         the number of certifications that certify sample i, from 0 to m
    observed_k  the number of samples with c_i = k
    expected_k  N P(S = k),  S the sum of m independent coins with the certified accuracies p_1 ... p_m

The law of S is Poisson-binomial: the convolution of [1 - p_j, p_j] over all j. CTBench, section 5.2 and Tables 2, 9 and
10. Where far more samples than expected have c_i = 0 or c_i = m, the networks make shared mistakes: samples have a
difficulty of their own. Two certifications of one network compare two verifiers (Table 9).

    agreement = compare_certifications([RunFolder(a).certification("linf-0.1"), CertificationFiles(path)])
    agreement.observed, agreement.expected, agreement.uncertified
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctbench.results.certification import Certification
from ctbench.results.decimals import decimals
from ctbench.results.runs import CertificationFiles, RunFolder
from ctbench.results.verdicts import Verdict

SETTINGS = ("dataset", "norm", "eps", "threat")  # what certifications of the same regions have in common


@dataclass(frozen=True, eq=False)
class Agreement:
    """The samples that each of m certifications certifies.

    Raises:
        ValueError: there are fewer than two certifications, or no samples.
    """

    names: tuple[str, ...]  # of the certifications, [m]
    indices: tuple[int, ...]  # of the samples in their data set, ascending, [N]
    labels: tuple[int, ...]  # [N]
    certified: NDArray[np.bool_]  # [m, N]

    def __post_init__(self) -> None:
        if len(self.names) < 2 or not self.indices:
            raise ValueError(
                f"there are {len(self.names)} certifications of {len(self.indices)} samples: give at least two, of at "
                "least one sample"
            )

    @property
    def accuracies(self) -> list[float]:
        """The certified accuracy of each certification."""
        return [float(share) for share in self.certified.mean(1)]

    @property
    def times_certified(self) -> list[int]:
        """c_i: the number of certifications that certify each sample, [N]."""
        return [int(times) for times in self.certified.sum(0)]

    @property
    def observed(self) -> list[int]:
        """The number of samples that k certifications certify, for k = 0 ... m."""
        return [int(count) for count in np.bincount(self.times_certified, minlength=len(self.names) + 1)]

    @property
    def expected(self) -> list[float]:
        """The expectation of `observed` if the certifications were independent."""
        return expected_counts(self.accuracies, len(self.indices))

    @property
    def correlations(self) -> list[list[float | None]]:
        """The phi coefficient of each pair, [m][m]; None if one of the two certifies all samples, or no sample."""
        return [[_phi(first, second) for second in self.certified] for first in self.certified]

    @property
    def uncertified(self) -> list[int]:
        """The indices of the samples that no certification certifies."""
        return [index for index, times in zip(self.indices, self.times_certified, strict=True) if not times]

    def difficulties(self) -> list[dict[str, Any]]:
        """One dictionary per sample, the hardest first.

        It has index, label, certified (c_i), and the difficulty 1 - c_i / m, the share that does not certify it.
        """
        scored = [
            {"index": index, "label": label, "certified": times, "difficulty": 1 - times / len(self.names)}
            for index, label, times in zip(self.indices, self.labels, self.times_certified, strict=True)
        ]
        return sorted(scored, key=lambda sample: (sample["certified"], sample["index"]))


def expected_counts(accuracies: Sequence[float], samples: int) -> list[float]:
    """N times the Poisson-binomial law: the expected number of samples that k of m independent networks certify.

    Args:
        accuracies: the certified accuracy of each network, in [0, 1], [m].
        samples: the number N of samples.

    Returns:
        The counts for k = 0 ... m.
    """
    law = np.ones(1)
    for accuracy in accuracies:
        law = np.convolve(law, [1 - accuracy, accuracy])
    return [float(samples * probability) for probability in law]


def _phi(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """(n11 n00 - n10 n01) / sqrt(n1. n0. n.1 n.0), the correlation of two yes-or-no variables; None for 0 / 0."""
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    sums = math.prod((both + only_first, only_second + neither, both + only_second, only_first + neither))
    return (both * neither - only_first * only_second) / math.sqrt(sums) if sums else None


def compare_certifications(
    files: Sequence[CertificationFiles], names: Sequence[str] = (), contents: Sequence[Certification] = ()
) -> Agreement:
    """The agreement of certifications of the same samples and regions.

    Args:
        files: their files.
        names: a name for each; by default the path of its records.
        contents: the records of each, if they are open already.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there are fewer than two, one is damaged, or they differ in data set, norm, eps, threat model or
            samples; the message names the first difference.
    """
    read = contents or map(_opened, files)
    columns = [_Columns.of(each, records) for each, records in zip(files, read, strict=True)]
    for one, other in pairwise(columns):
        _check_same_settings(one.files, one.settings, other.files, other.settings)
        _check_same_samples(one, other)
    none = np.empty(0, dtype=np.int64)
    indices, labels = (columns[0].indices, columns[0].labels) if columns else (none, none)
    return Agreement(
        names=tuple(names or [str(each.records) for each in files]),
        indices=tuple(indices.tolist()),
        labels=tuple(labels.tolist()),
        certified=np.array([each.certified for each in columns]),
    )


def _opened(files: CertificationFiles) -> Certification:
    if not files.records.is_file():
        raise FileNotFoundError(f"there is no file {files.records}")
    return files.open()


@dataclass(frozen=True, eq=False)
class _Columns:
    """What is compared of a certification."""

    files: CertificationFiles
    settings: dict[str, Any]
    indices: NDArray[np.int64]  # [N]
    labels: NDArray[np.int64]  # [N]
    digests: NDArray[np.bytes_]  # [N]
    certified: NDArray[np.bool_]  # [N]

    @classmethod
    def of(cls, files: CertificationFiles, certification: Certification) -> _Columns:
        settings = files.read_settings()
        size = len(certification)
        labels, certified = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.bool_)
        digests = np.empty(size, dtype="S64")
        for place, record in enumerate(certification):
            if not record.digest:
                raise ValueError(
                    f"{files.records}: sample {record.index} has no digest, so its input is not known: certify it again"
                )
            labels[place], digests[place] = record.label, record.digest.encode()
            certified[place] = record.verdict is Verdict.CERTIFIED
        return cls(files, settings, certification.indices, labels, digests, certified)


def _check_same_settings(
    first: CertificationFiles, settings: dict[str, Any], other: CertificationFiles, its: dict[str, Any]
) -> None:
    for name in SETTINGS:
        if settings.get(name) != its.get(name):
            raise ValueError(
                f"{first.records} has {name} {settings.get(name)!r} and {other.records} has {its.get(name)!r}: give "
                "certifications of the same regions"
            )


def _check_same_samples(one: _Columns, other: _Columns) -> None:
    lacking = np.setxor1d(one.indices, other.indices, assume_unique=True)
    if len(lacking):
        place = other if lacking[0] in one.indices else one
        raise ValueError(
            f"{one.files.records} has {len(one.indices)} samples and {other.files.records} has {len(other.indices)}; "
            f"{place.files.records} lacks sample {lacking[0]}: certify the same samples"
        )
    different = np.flatnonzero((one.digests != other.digests) | (one.labels != other.labels))
    if len(different):
        raise ValueError(
            f"sample {one.indices[different[0]]} has another input or label in {one.files.records} than in "
            f"{other.files.records}: give certifications of the same data"
        )


def certification_of(path: Path, eps: float | None = None) -> CertificationFiles:
    """The certification that a path names: a .jsonl file of records, or the one of a run folder at this eps.

    Args:
        path: of the records or the run folder.
        eps: the radius; None: any, if the run has only one certification.

    Raises:
        FileNotFoundError: there is no such file or run.
        ValueError: the run has no certification at this eps, or several; or the file has another eps.
    """
    if path.suffix == ".jsonl":
        files = CertificationFiles(path)
        if eps is not None and not _is_at(files, eps):
            raise ValueError(f"{path} has eps {files.read_settings().get('eps')!r}, not {decimals(eps)}: leave it out")
        return files
    folder = RunFolder(path)
    certifications = folder.certifications()
    if not certifications:
        folder.require()
    matching = [files for files in certifications if eps is None or _is_at(files, eps)]
    if len(matching) == 1:
        return matching[0]
    present = ", ".join(files.records.stem for files in matching or certifications) or "no certification"
    radius = "" if eps is None else f" at eps {decimals(eps)}"
    raise ValueError(
        f"{path} has {len(matching)} certifications{radius}, one is needed; it has {present}: certify the run, give "
        f"another eps, or name one file in {path / 'certified'}"
    )


def _is_at(files: CertificationFiles, eps: float) -> bool:
    its = files.read_settings().get("eps")
    return isinstance(its, int | float) and math.isclose(its, eps, rel_tol=1e-9)  # a list: a radius for each feature
