"""What records are compared with: the network and the test images of a run, and the problems that both make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctbench.datasets import Data, corrupted
from ctbench.graph import Precisions
from ctbench.graph.precisions import doubled
from ctbench.networks import Given
from ctbench.packs.claims import ClaimError
from ctbench.regions import Threat
from ctbench.regions.lookup import threat
from ctbench.results import SampleRecord
from ctbench.specification import margin_rows
from ctbench.training import Run
from ctbench.verify import Problem
from ctbench.verify.job import Samples

CHUNK = 256  # samples at a time
OWN = (
    "a normalisation of a module of your own is rounded in network.onnx, which is checked: certify the run as load_run "
    "gives it without the module"
)


class CleanOutput(NamedTuple):
    """What the network says at the clean input of a record, in exact arithmetic where the sign is known."""

    record: SampleRecord
    sign: float  # of the least margin of the label: 1, 0 or -1, NaN if it is not known
    predicted: int  # the class with the greatest logit in double precision
    is_finite: bool  # whether all logits are
    fits: float  # 1 if the class that the record predicts has the greatest logit, -1 if not, NaN if it is not known


@dataclass(frozen=True, eq=False)
class Subject:
    """A run and the test images that records are about."""

    run: Run
    data: Data
    title: str  # of the data
    root: Path | None = None  # the folder of the data sets

    def of(self, title: Any) -> Subject:
        """The same run with the images of records: the test set, or the test set with a corruption of ours.

        Raises:
            ClaimError: no such images can be made.
            ValueError: there is no corruption of this name or severity.
        """
        name, dash, severity = str(title).removeprefix(f"{self.title}+").rpartition("-")
        if title == self.title:
            return self
        if not (str(title).startswith(f"{self.title}+") and dash and severity.isdecimal()):
            raise ClaimError(f"its records are about {title!r}, and the test images are {self.title!r}")
        other = corrupted(self.run.recipe.dataset, name, severity=int(severity))
        return Subject(self.run, other.load(self.root), other.title, self.root)

    @cached_property
    def double(self) -> nn.Module:
        """The network in double precision."""
        return doubled(self.run.model)

    @cached_property
    def precisions(self) -> Precisions:
        return Precisions.of(self.run.model, self.data.test[:1][0])

    @cached_property
    def digest(self) -> str:
        """The digest that settings of records have of this network."""
        return self.precisions.proof.digest()

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Test inputs and labels."""
        return self.data.test[list(indices)]

    def problem(self, indices: Sequence[int], threat: Threat) -> Problem:
        """The problem of some test images, in double precision and rounded outward."""
        x, y = self.batch(indices)
        return Problem.of_labels(self.precisions.proof, x.double(), y, threat)

    def threat_of(self, settings: Mapping[str, Any]) -> Threat:
        """The threat model that settings describe, made again from their norm and radius.

        Raises:
            ClaimError: no threat model of this norm and radius has this description.
        """
        norm, eps, described = str(settings.get("norm")), settings["eps"], settings.get("threat")
        own = self.run.recipe.threat
        makers: list[Callable[[], Threat]] = [lambda: threat(norm, eps), lambda: threat(norm, eps, clip=None)]
        if own.name == norm:
            makers.insert(0, lambda: replace(own, eps=eps))
        for make in makers:
            if repr(made := make()) == described:
                return made
        raise ClaimError(
            f"its norm is {norm!r} and its eps {eps!r}, but its threat is {described!r}: these do not agree"
        )

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ClaimError if settings of records are about another network or range of samples."""
        if settings.get("network_digest") != self.digest:
            hint = f"; {OWN}" if isinstance(self.run.recipe.network, Given) else ""
            raise ClaimError(
                f"its records are about another network than these weights: the network_digest differs{hint}"
            )
        ends = settings.get("samples")
        if ends is not None and not 0 <= ends[0] < ends[1] <= len(self.data.test):
            raise ClaimError(f"its samples are {ends}, and there are {len(self.data.test)} test images")

    def check_inputs(self, records: Sequence[SampleRecord]) -> None:
        """Raise ClaimError if a record is about another input or label than the test image of its index."""
        beyond = [record.index for record in records if record.index >= len(self.data.test)]
        if beyond:
            raise ClaimError(f"there is no test image {beyond[0]}, there are {len(self.data.test)}")
        for part in _parts(records):
            samples = Samples([record.index for record in part], *self.batch([record.index for record in part]))
            for place, record in enumerate(part):
                if (record.label, record.digest) != (int(samples.y[place]), samples.digest(place)):
                    label = f"label {record.label}, the image has {int(samples.y[place])}"
                    raise ClaimError(f"the record of sample {record.index} is about another image or label ({label})")

    def clean(self, records: Sequence[SampleRecord]) -> Iterator[CleanOutput]:
        """What the network says at the clean input of each record.

        Raises:
            ClaimError: a record predicts a class that the network does not have.
        """
        for part in _parts(records):
            problem = self.problem([record.index for record in part], self.run.recipe.threat)
            classes = [_stated_class(record, problem.net.classes) for record in part]
            said = torch.tensor(classes, device=problem.x.device)
            with torch.no_grad():
                logits = self.double(problem.x)
                signs = problem.signs(problem.x)
                of_said = replace(problem, spec=margin_rows(said, problem.net.classes, dtype=problem.x.dtype))
                lower, upper = of_said.least_margin(problem.x)
            fits = torch.where(lower > 0, 1.0, torch.where(upper < 0, -1.0, torch.nan))
            columns = signs, logits.argmax(1), torch.isfinite(logits).all(1), fits
            yield from map(CleanOutput, part, *(column.tolist() for column in columns))


def _stated_class(record: SampleRecord, classes: int) -> int:
    """The class that a record predicts; its label if it predicts none."""
    if record.prediction >= classes:
        raise ClaimError(f"sample {record.index} has prediction {record.prediction}, the network has {classes} classes")
    return record.label if record.prediction == -1 else record.prediction


def _parts(records: Sequence[SampleRecord]) -> Iterator[Sequence[SampleRecord]]:
    for start in range(0, len(records), CHUNK):
        yield records[start : start + CHUNK]
