"""Checks of the records of one certification: counts, inputs, predictions, counterexamples, and proofs made again."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctbench.packs.claims import Claim, ClaimError, claim
from ctbench.packs.subject import Subject
from ctbench.regions import Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.radii import RadiusFiles, Trial
from ctbench.verify import certify

NAMED = re.compile(r"(?P<norm>[a-z0-9]+)-(?P<eps>[0-9][0-9.e+-]*)")  # the name of the records of a norm and a radius
NEAR = 1e-9  # how far from its region a point may lie because of rounding; it is replayed at the nearest point inside
OUTCOMES = "natural {:.2f} %, adversarial {:.2f} %, certified {:.2f} %"


@dataclass(frozen=True, eq=False, kw_only=True)
class Again:
    """How records are certified again.

    Args:
        samples: the number of samples of each file, chosen at random; 0 for none.
        seed: of the choice.
        timeout: seconds for each sample.
    """

    samples: int
    seed: int
    timeout: float | None

    def chosen(self, indices: Sequence[int], about: str) -> list[int]:
        """Some of the indices, ascending."""
        count = min(self.samples, len(indices))
        return sorted(random.Random(f"{self.seed} {about}").sample(list(indices), count))


def claims(files: CertificationFiles, about: str, subject: Subject, again: Again) -> Iterator[Claim]:
    """The claims of a certification, each with what the check found. Later ones need the first two."""
    check = _Check(files, about, subject, again)
    for look in (check.settings, check.records):
        found = claim(about, look)
        yield found
        if not found.holds:
            return
    yield claim(about, check.predictions)
    yield claim(about, check.counterexamples)
    yield claim(about, check.proofs)


@dataclass(eq=False)
class _Check:
    """The checks of one certification, in their order."""

    files: CertificationFiles
    about: str
    subject: Subject
    again: Again
    threat: Threat | None = None
    certification: Certification = field(default_factory=lambda: Certification(()))

    def settings(self) -> str:
        """Whether the settings are about this network, these data, and the regions that they describe."""
        settings = self.files.read_settings()
        self.subject = self.subject.of(settings.get("dataset", self.subject.title))
        self.subject.check_settings(settings)
        self.threat = self.subject.threat_of(settings)
        named = NAMED.fullmatch(self.files.records.stem)
        if named and (named["norm"], _float(named["eps"])) != (self.threat.name, self.threat.eps):
            raise ClaimError(f"its settings say {self.threat.name} eps {self.threat.eps!r}, its name says otherwise")
        return f"{self.threat.name} eps {self.threat.eps!r}, of this network and of {self.subject.title}"

    def records(self) -> str:
        """Whether each sample has one record, about its image."""
        certification, ends = self.files.read(), self.files.read_settings().get("samples")
        indices = [record.index for record in certification]
        if not indices:
            raise ClaimError("it has no records")
        wanted = range(*ends) if ends else range(indices[0], indices[-1] + 1)
        missing = sorted(set(wanted) - set(indices))
        if missing:
            raise ClaimError(f"it lacks {len(missing)} of {len(wanted)} samples, e.g. sample {missing[0]}")
        self.subject.check_inputs(tuple(certification))
        self.certification = certification
        total = len(self.subject.data.test)
        rates = (certification.natural_accuracy, certification.adversarial_accuracy, certification.certified_accuracy)
        rest = f"{certification.counts[Verdict.UNKNOWN]} unknown"
        shares = OUTCOMES.format(*(100 * rate for rate in rates))
        return f"samples {indices[0]} to {indices[-1]} of {total} test images, each once: {shares}, {rest}"

    def predictions(self) -> str:
        """Whether the network is right at the clean inputs where the records say it, and wrong where they say that."""
        for record, sign, predicted in self.subject.signs(tuple(self.certification)):
            wrong = record.verdict is Verdict.MISCLASSIFIED
            if (sign < 0 and (not wrong or record.right)) or (sign > 0 and wrong):
                raise ClaimError(
                    f"sample {record.index} is {record.verdict} with prediction {record.prediction}, but the network "
                    f"predicts {predicted} and its label is {record.label}"
                )
            if record.verdict is Verdict.CERTIFIED and sign == 0:
                raise ClaimError(f"sample {record.index} is certified, but two logits are equal at the clean input")
        return f"the predictions of all {len(self.certification)} samples are as said"

    def counterexamples(self) -> str:
        """Whether the points that were kept lie in their regions, and are counterexamples there, exactly."""
        falsified = self._with(Verdict.FALSIFIED)
        points = {int(path.stem): path for path in self.files.counterexamples.glob("*.npy")}
        if others := sorted(points.keys() - set(falsified)):
            raise ClaimError(
                f"there is a counterexample of sample {others[0]}, which the records do not call falsified"
            )
        if not points:
            return f"no counterexamples were kept of {len(falsified)} falsified samples"
        if missing := sorted(set(falsified) - points.keys()):
            raise ClaimError(f"the counterexample of sample {missing[0]} is missing")
        for index in falsified:
            self._replay(index, points[index])
        return f"all {len(falsified)} counterexamples lie in their regions, and the network is wrong there"

    def _replay(self, index: int, path: Path) -> None:
        assert self.threat is not None, "the settings were checked first"
        problem = self.subject.problem([index], self.threat)
        point = read_point(path, tuple(problem.x.shape[1:])).to(problem.x.device).unsqueeze(0)
        inside = problem.region.project(point)
        if not bool((inside - point).abs().max() <= NEAR):
            raise ClaimError(f"the counterexample of sample {index} lies outside its region")
        if not bool(problem.counterexamples(inside)[1].all()):
            raise ClaimError(f"the network is right at the counterexample of sample {index}")

    def proofs(self) -> str:
        """Whether a random part of the samples is certified again, in double precision.

        Samples that are falsified without a counterexample are also tried, and must not be certified.
        """
        assert self.threat is not None, "the settings were checked first"
        certified = self._with(Verdict.CERTIFIED)
        kept = any(self.files.counterexamples.glob("*.npy"))
        chosen = self.again.chosen(certified + ([] if kept else self._with(Verdict.FALSIFIED)), self.about)
        prove_again(self.subject, self.threat, [self._by_index[index] for index in chosen], self.again)
        return f"{len(set(chosen) & set(certified))} of {len(certified)} certified samples were certified again"

    @property
    def _by_index(self) -> dict[int, SampleRecord]:
        return {record.index: record for record in self.certification}

    def _with(self, verdict: Verdict) -> list[int]:
        return [record.index for record in self.certification if record.verdict is verdict]


def prove_again(subject: Subject, threat: Threat, records: Sequence[SampleRecord], again: Again) -> None:
    """Certify samples again in double precision, and compare the verdicts.

    Raises:
        ClaimError: a certified sample is not certified now, or a falsified one is.
    """
    if not records:
        return
    x, y = subject.batch([record.index for record in records])
    results = certify(subject.double, x, y, threat, timeout=again.timeout, seed=again.seed)
    for record, result in zip(records, results, strict=True):
        said, now = record.verdict, result.verdict
        if said is Verdict.CERTIFIED and now is Verdict.UNKNOWN:
            raise ClaimError(
                f"sample {record.index} is certified, but this was not proved again ({result.reason}): give more time"
            )
        if (said is Verdict.CERTIFIED) != (now is Verdict.CERTIFIED):
            raise ClaimError(f"sample {record.index} is {said} in the records, but it is {now}")


def radius_claims(files: RadiusFiles, about: str, subject: Subject, again: Again) -> Iterator[Claim]:
    """The claims of a search for radii."""
    trials = list[Trial]()

    def read() -> str:
        nonlocal subject
        settings = files.read_settings()
        subject = subject.of(settings.get("dataset", subject.title))
        subject.check_settings(settings)
        subject.threat_of(settings)
        trials.extend(files.trials())
        subject.check_inputs([trial.record for trial in trials])
        return f"{len(trials)} trials of {len(files.read())} samples, of this network and of {subject.title}"

    def prove() -> str:
        threat = subject.threat_of(files.read_settings())
        best = {sample.index: sample.certified for sample in files.read() if sample.certified}
        chosen = again.chosen(sorted(best), about)
        by_eps: dict[float, list[SampleRecord]] = {}
        for eps, record in trials:
            if record.index in chosen and best[record.index] == eps and record.verdict is Verdict.CERTIFIED:
                by_eps.setdefault(eps, []).append(record)
        for eps, records in by_eps.items():
            prove_again(subject, replace(threat, eps=eps), records, again)
        return f"{len(chosen)} of {len(best)} samples were certified again at their largest radius"

    found = claim(about, read)
    yield found
    if found.holds:
        yield claim(about, prove)


def read_point(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A point [*shape] in double precision from an NPY file, of which nothing is unpickled.

    Raises:
        ClaimError: it is not an NPY file of finite doubles of this shape.
    """
    size = 8 * math.prod(shape)
    if path.stat().st_size > size + 4096:
        raise ClaimError(f"{path.name} has {path.stat().st_size} bytes, a point of shape {shape} has {size}")
    try:
        point = np.load(path, allow_pickle=False, mmap_mode=None)
    except (ValueError, EOFError, MemoryError, SyntaxError, OSError) as error:
        raise ClaimError(f"{path.name} is not an NPY file of a point ({error})") from None
    if point.dtype != np.float64 or point.shape != shape or not np.isfinite(point).all():
        raise ClaimError(f"{path.name} does not hold finite doubles of shape {shape} but {point.dtype} {point.shape}")
    return torch.from_numpy(point)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
