"""Checks of the records of one certification: samples, inputs, predictions, counterexamples, proofs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctbench.packs.again import Again, attack_again, prove_again
from ctbench.packs.claims import Claim, ClaimError, claim
from ctbench.packs.predictions import check_predictions
from ctbench.packs.stated import check_name, samples_of
from ctbench.packs.subject import Subject
from ctbench.regions import Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict

NEAR = 1e-9  # how far from its region a point may lie because of rounding; it is replayed at the nearest point inside
OUTCOMES = "natural {:.2f} %, adversarial {:.2f} % as said, certified {:.2f} %"


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
    if check.certification.counts[Verdict.UNKNOWN]:
        yield claim(about, check.attacks)


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
        check_name(self.files.records.stem, self.threat)
        return f"{self.threat.name} eps {self.threat.eps!r}, of this network and of {self.subject.title}"

    def records(self) -> str:
        """Whether each sample has one record, about its image."""
        certification = self.files.read()
        wanted = samples_of(tuple(certification), self.files.read_settings())
        self.subject.check_inputs(tuple(certification))
        self.certification = certification
        total = len(self.subject.data.test)
        rates = (certification.natural_accuracy, certification.adversarial_accuracy, certification.certified_accuracy)
        rest = f"{certification.counts[Verdict.UNKNOWN]} unknown"
        shares = OUTCOMES.format(*(100 * rate for rate in rates))
        return f"samples {wanted[0]} to {wanted[-1]} of {total} test images, each once: {shares}, {rest}"

    def predictions(self) -> str:
        """Whether the network is right at the clean inputs where the records say it, and wrong where they say that."""
        return check_predictions(self.subject, tuple(self.certification), f"{len(self.certification)} samples")

    def counterexamples(self) -> str:
        """Whether the points that were kept lie in their regions, and are counterexamples there, exactly."""
        falsified = self._with(Verdict.FALSIFIED)
        paths = list(self.files.counterexamples.glob("*.npy"))
        if unnamed := [path.name for path in paths if not path.stem.isdecimal()]:
            raise ClaimError(f"the counterexample {unnamed[0]} is not named by the number of its sample: remove it")
        points = {int(path.stem): path for path in paths}
        if others := sorted(points.keys() - set(falsified)):
            raise ClaimError(
                f"there is a counterexample of sample {others[0]}, which the records do not call falsified"
            )
        if not points:
            return f"no counterexamples were kept of {len(falsified)} falsified samples"
        if missing := sorted(set(falsified) - points.keys()):
            raise ClaimError(
                f"the counterexample of sample {missing[0]} is missing: certify again with --counterexamples, or "
                f"remove the folder {self.files.counterexamples.name}, so that a random part is falsified again"
            )
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
        """Whether a random part of the certified samples is certified again, in double precision.

        A random part of the falsified samples is also tried if no counterexamples were kept, and must not be certified.
        """
        assert self.threat is not None, "the settings were checked first"
        certified, falsified = self._with(Verdict.CERTIFIED), self._with(Verdict.FALSIFIED)
        if any(self.files.counterexamples.glob("*.npy")):
            falsified = []
        chosen = self.again.chosen(certified, self.about)
        tried = self.again.chosen(falsified, self.about)
        found = prove_again(self.subject, self.threat, [self._by_index[index] for index in chosen + tried], self.again)
        said = f"{len(chosen)} of {len(certified)} certified samples were certified again"
        if not falsified:
            return said
        again = f"{found[Verdict.FALSIFIED, Verdict.FALSIFIED]} of {len(falsified)} falsified samples"
        return f"{said}; {again} were falsified again, {len(tried)} were tried, none was certified"

    def attacks(self) -> str:
        """What an attack finds on a random part of the unknown samples: they bound the adversarial accuracy."""
        assert self.threat is not None, "the settings were checked first"
        unknown = [index for index in self._with(Verdict.UNKNOWN) if self._by_index[index].right]
        chosen = self.again.chosen(unknown, self.about)
        falsified = attack_again(self.subject, self.threat, chosen, self.again)
        accuracy = self.certification.adversarial_accuracy - falsified / len(self.certification)
        return (
            f"of {len(unknown)} unknown samples with the right prediction an attack tried {len(chosen)}, and falsified "
            f"{falsified}: with these, the adversarial accuracy is {100 * accuracy:.2f} %; nothing proves that it is "
            f"not lower"
        )

    @cached_property
    def _by_index(self) -> dict[int, SampleRecord]:
        return {record.index: record for record in self.certification}

    def _with(self, verdict: Verdict) -> list[int]:
        return [record.index for record in self.certification if record.verdict is verdict]


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
