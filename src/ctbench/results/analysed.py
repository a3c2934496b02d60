"""The results of an analysis: a record for each part of the test set and each radius, and means over all of them.

A record has points. Most analyses have one; those with an axis, such as the shares lambda of a radius, have one for
each place x on it. A point has quantities by name: a number for each sample (null where there is none), or one for the
part. Names that begin with "layer" are those of single layers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ctbench.results import jsonl
from ctbench.results.certification import Certification
from ctbench.results.checking import CHECKSUM, checksum, sealed, unsealed
from ctbench.results.decimals import decimals
from ctbench.results.files import RecordFiles, differences

Values = float | Sequence[float | None]
LABELS = ("run", "method")  # settings that name what was analysed; its digest says whether it is the same
COMPARABLE = ("network_digest", "norm", "dataset")  # settings that an analysis and a certification share
NEEDED = ("eps", "start", "stop", "digest", "seconds", "points")


@dataclass(frozen=True)
class Measurement:
    """Quantities by name: a number for each sample of a part, or one for the whole part."""

    values: Mapping[str, Values]
    x: float | None = None  # the place on the axis of the analysis, if it has one


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """What an analysis measured at one radius on the samples from `start` to `stop` - 1."""

    eps: float
    start: int
    stop: int
    digest: str  # of the samples and their labels; a resumed analysis compares it
    seconds: float
    points: tuple[Measurement, ...]

    @property
    def key(self) -> tuple[float, int, int]:
        return self.eps, self.start, self.stop

    def to_json(self) -> dict[str, Any]:
        points = [{"x": point.x, "values": dict(point.values)} for point in self.points]
        return {**{name: getattr(self, name) for name in NEEDED}, "points": points}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PartRecord:
        """Raises ValueError if the record is not one of an analysis, and says why."""
        if record.keys() != set(NEEDED):
            raise ValueError(f"not the record of an analysis: its fields must be {', '.join(NEEDED)}")
        count = record["stop"] - record["start"]
        points = tuple(Measurement(point["values"], point["x"]) for point in record["points"])
        for values in (values for point in points for values in point.values.values()):
            if isinstance(values, list) and len(values) != count:
                raise ValueError(f"not the record of an analysis: {len(values)} numbers for {count} samples")
        return cls(**{**record, "points": points})


@dataclass(frozen=True)
class Summary:
    """The mean of a quantity over `count` samples."""

    mean: float
    deviation: float  # the standard deviation
    error: float  # the standard error of the mean
    count: int


@dataclass(frozen=True)
class Measurements:
    """All that an analysis measured."""

    records: tuple[PartRecord, ...]

    @property
    def radii(self) -> list[float]:
        """All eps, ascending."""
        return sorted({record.eps for record in self.records})

    def samples(self, eps: float | None = None) -> int:
        """The number of samples at a radius."""
        return sum(record.stop - record.start for record in self._at(eps))

    def indices(self, eps: float | None = None) -> NDArray[np.int64]:
        """The indices of the samples at a radius, ascending."""
        parts = [np.arange(record.start, record.stop) for record in self._at(eps)]
        return np.unique(np.concatenate([*parts, np.empty(0, dtype=np.int64)]))

    def certified(self, certifications: Iterable[Certification], eps: float) -> Certification | None:
        """The records of the samples that were measured at a radius, of the certification that proves most of them.

        None if no certification has all these samples: accuracies of others would not be comparable.
        """
        samples = self.indices(eps)
        there = [job for one in certifications if len(job := one.only(samples)) == len(samples) > 0]
        return max(there, key=lambda job: job.certified_accuracy, default=None)

    def digest(self, eps: float | None = None) -> str:
        """A digest of the samples and their labels at a radius: runs with the same digest were asked about the same."""
        parts = [f"{record.start} {record.stop} {record.digest}" for record in self._at(eps)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def places(self, eps: float | None = None) -> list[float | None]:
        """The places on the axis at a radius, ascending; None, for no place, is the first."""
        places = {point.x for record in self._at(eps) for point in record.points}
        return sorted(places, key=lambda x: -math.inf if x is None else x)

    def quantities(self, eps: float | None = None, x: float | None = None) -> list[str]:
        """The names of the quantities at a place; without a place, those of all places if each quantity has one."""
        everywhere = x is None and None not in self.places(eps)
        points = (point for record in self._at(eps) for point in record.points if everywhere or point.x == x)
        return list(dict.fromkeys(name for point in points for name in point.values))

    def values(self, quantity: str, eps: float | None = None, x: float | None = None) -> list[float]:
        """The numbers of a quantity, in the order of the samples, without those that are missing.

        Args:
            quantity: its name.
            eps: the radius; None if there is only one.
            x: the place on the axis, if there is an axis.

        Raises:
            ValueError: there are several radii, or no such quantity or place.
        """
        return [value for value, _ in self._weighted(quantity, eps, x)]

    def summary(self, quantity: str, eps: float | None = None, x: float | None = None) -> Summary:
        """Mean and spread of a quantity; arguments and errors as for `values`. A number of a part counts for each of
        its samples.
        """
        pairs = self._weighted(quantity, eps, x)
        count = sum(weight for _, weight in pairs)
        if not count:
            return Summary(math.nan, math.nan, math.nan, 0)
        mean = math.fsum(value * weight for value, weight in pairs) / count
        variance = math.fsum(weight * (value - mean) ** 2 for value, weight in pairs) / count
        if len(pairs) == 1:
            return Summary(mean, math.nan if count > 1 else 0.0, math.nan, count)
        variance *= len(pairs) / (len(pairs) - 1)
        return Summary(mean, math.sqrt(variance), math.sqrt(variance / len(pairs)), count)

    def mean(self, quantity: str, eps: float | None = None, x: float | None = None) -> float:
        """The mean of a quantity; arguments and errors as for `values`."""
        return self.summary(quantity, eps, x).mean

    def exponents(self, quantity: str, eps: float | None = None) -> dict[float, float]:
        """d log(mean) / d log(x) between neighbouring places, by their geometric mean: above 1 is super-linear.

        Places where a mean is not positive are left out.
        """
        places = [x for x in self.places(eps) if x is not None and x > 0 and quantity in self.quantities(eps, x)]
        means = {x: self.mean(quantity, eps, x) for x in places}
        usable = [x for x in places if means[x] > 0]
        return {math.sqrt(a * b): math.log(means[b] / means[a]) / math.log(b / a) for a, b in pairwise(usable)}

    def only(self, keys: Collection[tuple[float, int, int]]) -> Measurements:
        """The records of some parts: their eps, start and stop."""
        return Measurements(tuple(record for record in self.records if record.key in keys))

    def _at(self, eps: float | None) -> Iterator[PartRecord]:
        """The records at a radius, in the order of the samples; of parts that overlap, the larger ones."""
        if eps is None and len(self.radii) > 1:
            raise ValueError(f"there are several radii, {', '.join(decimals(r) for r in self.radii)}: name one as eps")
        end = 0
        for record in sorted(self.records, key=lambda record: (record.start, -record.stop)):
            if (eps is None or record.eps == eps) and record.start >= end:
                end = record.stop
                yield record

    def _weighted(self, quantity: str, eps: float | None, x: float | None) -> list[tuple[float, int]]:
        """The numbers of a quantity, and for how many samples each counts."""
        pairs, known = list[tuple[float, int]](), False
        for record in self._at(eps):
            for point in record.points:
                if point.x != x or quantity not in point.values:
                    continue
                known, values = True, point.values[quantity]
                if isinstance(values, int | float):
                    pairs.append((values, record.stop - record.start))
                else:
                    pairs += [(value, 1) for value in values if value is not None]
        if not known:
            if x is None and quantity in self.quantities(eps):
                places = ", ".join(f"{place:g}" for place in self.places(eps) if place is not None)
                raise ValueError(f"{quantity!r} has a number at each of several places, {places}: name one as x")
            where = "" if x is None else f" at {x:g}"
            names = ", ".join(self.quantities(eps, x)) or "none"
            raise ValueError(f"there is no quantity {quantity!r}{where}: there are {names}")
        return pairs


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a figure of an analysis shows.

    Args:
        kind: "bars", one for each run and radius; "lines" over the axis; "histogram" of numbers of samples; or
            "scatter", with the certified accuracy.
        quantities: a panel for each (of lines: a line for each).
        label: of the y axis, or of what a histogram counts.
        x_label: of the axis.
        log: whether both axes of lines are logarithmic.
    """

    kind: Literal["bars", "lines", "histogram", "scatter"]
    quantities: tuple[str, ...]
    label: str
    x_label: str = ""
    log: bool = False


class AnalysisFiles(RecordFiles):
    """The files of one analysis of one network: its settings and its records."""

    kind: ClassVar[str] = "an analysis"

    def read(self) -> Measurements:
        """All complete records.

        Raises:
            ValueError: a line is not a record of an analysis, or a part has two records; the message names the file.
        """
        records = list[PartRecord]()
        for number, record in enumerate(jsonl.read(self.records), start=1):
            with jsonl.named(f"{self.records}, line {number}"):
                if record.get(CHECKSUM) != checksum(record):
                    raise ValueError("its checksum does not match: it was edited; remove this line, and analyse again")
                records.append(PartRecord.from_json(unsealed(record)))
        keys = [record.key for record in records]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{self.records}: a part has two records: take one of them out")
        return Measurements(tuple(records))

    def append(self, record: PartRecord) -> None:
        jsonl.append(self.records, [sealed(record.to_json())])

    def start(self, settings: dict[str, Any]) -> Measurements:
        """Prepare the files for `append`; returns the existing records, from which the analysis continues.

        The names of the run and of its method may differ, as a folder that was renamed or copied keeps its records; the
        new ones are written.

        Raises:
            ValueError: there are records that were made under other settings.
        """
        if self._begin(settings):
            return Measurements(())
        if not jsonl.read(self.records):
            jsonl.write_json(self.settings, sealed(settings))
        before = self.read_settings()
        now = json.loads(json.dumps(settings))
        labels = {name: now.get(name) for name in LABELS}
        different = differences(before | labels, now | labels)
        if different:
            raise ValueError(
                f"{self.records} was made under other settings ({different}): choose another place (--out)"
            )
        measurements = self.read()
        if any(before.get(name) != labels[name] for name in LABELS):
            jsonl.write_json(self.settings, sealed(settings))
        jsonl.rewrite(self.records, jsonl.read(self.records))  # without a record that was truncated by a kill
        return measurements
