"""The base class of analyses: a question about a trained network, answered by numbers on labelled inputs.

An analysis is a frozen dataclass. Its fields are its options, `measure` is its formula on a part of the inputs, and a
call takes any network and any number of inputs:

    Fragmentation(draws=50)(model, x, y, eps=0.1).mean("sampled")

The network is taken as at test time, with the running statistics, whatever mode it is in. eps is in pixel space.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn

from ctbench import memory_budget
from ctbench.engine import Engine, Here, Kept, Task
from ctbench.graph import Graph, Precisions, freeze, trace
from ctbench.members import members
from ctbench.methods.base import Batch
from ctbench.precision import full_float32
from ctbench.regions import Region, Threat
from ctbench.regions.lookup import threat_or_linf
from ctbench.results import Layout, Measurement, Measurements, PartRecord
from ctbench.specification import check_labels, check_samples, margin_rows

Key = tuple[float, int, int]  # a radius, and the first and the last sample of a part (exclusive)


class Where(TypedDict, total=False):
    """What every analysis takes besides its options: the regions around the inputs, and the seed of random draws."""

    threat: Threat  # the threat model, e.g. L2(0.5)
    eps: float  # the short form of threat=Linf(eps), in [0, 1] pixel space
    seed: int


@dataclass(frozen=True, eq=False)
class NetworkOnInputs:
    """A network and labelled inputs that analyses share.

    Args:
        model: the network.
        graph: its trace.
        precisions: its frozen graphs at test time, without gradients.
        x, y: all inputs, [N, *shape], and their labels, [N]; where y is None, the answers of the network.
        first: the index of x[0] in its data set.
        seed: of random draws.
    """

    model: nn.Module
    graph: Graph
    precisions: Precisions
    x: Tensor
    y: Tensor | None
    first: int = 0
    seed: int = 0

    @classmethod
    @full_float32
    def of(
        cls, model: nn.Module, x: Tensor, y: Tensor | None = None, *, first: int = 0, seed: int = 0
    ) -> NetworkOnInputs:
        """Raises UnsupportedLayerError or ValueError if the network, inputs or labels are not suitable."""
        check_samples(x, x if y is None else y)
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed!r}: it must be a whole number in [0, 2^31)")
        precisions = Precisions.of(model, x[:1])
        if y is not None:
            check_labels(y, precisions.search.classes)
        return cls(model, trace(model, tuple(x.shape[1:])), precisions, x, y, first, seed)

    def part(self, start: int, stop: int, threat: Threat) -> Part:
        """The samples from `start` to `stop` - 1 of the data set."""
        rows = slice(start - self.first, stop - self.first)
        x = self.x[rows].to(self.precisions.like)
        y = self.precisions.search(x).argmax(1) if self.y is None else self.y[rows].to(x.device, torch.long)
        # hashed, as generators on a CPU take no more than 32 bits of a seed
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {start}".encode()).digest()[:4])
        return Part(self.model, self.graph, self.precisions, x, y, threat, seed)


@dataclass(frozen=True, eq=False)
class Part:
    """Some of these inputs, at one radius."""

    model: nn.Module
    graph: Graph  # the trace of the network
    precisions: Precisions
    x: Tensor  # [B, *shape]
    y: Tensor  # [B]
    threat: Threat
    seed: int

    @property
    def net(self) -> Graph:
        """The frozen graph at test time, in the precision of the network, without gradients."""
        return self.precisions.search

    @property
    def proof(self) -> Graph:
        """The same in double precision, with bounds that are rounded outward."""
        return self.precisions.proof

    def with_gradients(self) -> Graph:
        """The same as `net`, from which gradients flow to the parameters; each call makes a new one."""
        return freeze(self.graph, self.x[:1])[0]

    @cached_property
    def region(self) -> Region:
        return self.threat.region(self.x)

    @cached_property
    def spec(self) -> Tensor:
        """The K - 1 margins z_y - z_k as rows over the logits, [B, K-1, K]."""
        return margin_rows(self.y, self.net.classes, dtype=self.x.dtype)

    def generator(self) -> torch.Generator:
        """A source of random draws, which are the same for each generator of a part."""
        return torch.Generator(self.x.device).manual_seed(self.seed)

    def batch(self, net: Graph) -> Batch:
        """The samples as a training method takes them, with the logits of a network."""
        return Batch.within(self.threat, self.x, self.y, net(self.x), self.generator())

    def scaled(self, scale: float) -> Region:
        """The region at a multiple of eps."""
        return replace(self.threat, eps=scale * self.threat.eps).region(self.x)

    def take(self, start: int, stop: int) -> Part:
        """Some of the samples, by their positions; they draw other random numbers."""
        return replace(self, x=self.x[start:stop], y=self.y[start:stop], seed=(self.seed + start) % 2**32)

    def split(self, elements: int) -> Iterator[Part]:
        """The samples in parts that hold at most the memory budget, with `elements` numbers for each sample."""
        size = max(1, memory_budget.of(self.x.device) // (elements * self.x.element_size()))
        return (self.take(start, min(len(self.x), start + size)) for start in range(0, len(self.x), size))

    def digest(self) -> str:
        """A digest of the samples and their labels."""
        content = self.x.double().cpu().contiguous().numpy().tobytes() + self.y.cpu().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Analysis(ABC):
    """A question about a trained network. Fields are its options, with defaults."""

    name: ClassVar[str]
    size: ClassVar[int | None] = 256  # the number of samples of a record; None: all samples have one record
    layout: ClassVar[Layout | None] = None  # of its figure, if there is one

    @abstractmethod
    def measure(self, part: Part) -> list[Measurement]:
        """The quantities of some samples; `measurement` makes them from tensors. It is called without gradients."""

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor | None = None,
        threat: Threat | None = None,
        *,
        eps: float | None = None,
        seed: int = 0,
        engine: Engine | None = None,
    ) -> Measurements:
        """Measure a network.

        Args:
            model: any network of supported layers, normalisation inside.
            x: inputs in the data range, [N, *shape].
            y: labels, [N] integers; None takes the answers of the network.
            threat: what may be done to an input, e.g. Linf(8 / 255) or L2(0.5), of one radius.
            eps: the short form of threat=Linf(eps), in [0, 1] pixel space.
            seed: of random draws.
            engine: where the parts are measured, e.g. `ctbench.engine.Local(workers=2)`; by default in this process.

        Raises:
            UnsupportedLayerError: a layer has no op; the message says which layer and what to register.
            ValueError: the network, an eps, input, label or option is invalid.
        """
        pair = NetworkOnInputs.of(model, x, y, seed=seed)
        return Measurements(tuple(self.records(pair, [threat_or_linf(threat, eps)], engine=engine)))

    def keys(self, pair: NetworkOnInputs, threat: Threat) -> list[Key]:
        """The parts of the inputs at a radius. They begin at multiples of `size`, so that more samples add parts."""
        if not isinstance(threat.eps, int | float):
            raise ValueError(f"eps is {threat.eps!r}: an analysis takes one radius for all features")
        start, stop = pair.first, pair.first + len(pair.x)
        size = self.size or stop
        edges = [start, *range((start // size + 1) * size, stop, size), stop]
        return [(float(threat.eps), *pair) for pair in pairwise(edges)]

    def records(
        self,
        pair: NetworkOnInputs,
        threats: Sequence[Threat],
        done: Mapping[Key, PartRecord] | None = None,
        *,
        engine: Engine | None = None,
    ) -> Iterator[PartRecord]:
        """The records of all parts at the radii of threat models, as they are computed, except those that are done.

        Args:
            pair: the network and the inputs.
            threats: the threat models, e.g. one at several radii.
            done: records that are there, by their keys.
            engine: where the parts are measured; by default in this process.

        Raises:
            ValueError: a record that is done is about other inputs or labels.
            ChildProcessError: the analysis failed in workers, or they died of it; after all other parts.
        """
        kept, tasks, recorded = Kept((self, pair)), list[Task](), set(done or ())
        for threat in threats:
            threat.check(pair.x)
            for key in self.keys(pair, threat):
                if not done or key not in done:
                    tasks.append(Task(f"samples {key[1]} to {key[2] - 1} at {key[0]:g}", _record, (threat, key), kept))
                elif done[key].digest != _digest(pair, threat, key):
                    raise ValueError(
                        f"the record of samples {key[1]} to {key[2] - 1} is about other inputs or labels: choose "
                        f"another place"
                    )
        with closing((engine or Here()).run(tasks, count=len(tasks))) as records:
            for _, record in records:
                if record.key not in recorded:  # a worker may die after it has sent its record
                    recorded.add(record.key)
                    yield record


@full_float32
@torch.no_grad()
def _digest(pair: NetworkOnInputs, threat: Threat, key: Key) -> str:
    """The digest of the samples of a part."""
    return pair.part(key[1], key[2], threat).digest()


@full_float32
@torch.no_grad()
def _record(asked: tuple[Analysis, NetworkOnInputs], threat: Threat, key: Key) -> Iterator[PartRecord]:
    """The task of a worker: measure a part. Yields its only record."""
    analysis, pair = asked
    begin, part = time.perf_counter(), pair.part(key[1], key[2], threat)
    points = tuple(analysis.measure(part))
    seconds = time.perf_counter() - begin
    _check(analysis, points, len(part.x))
    yield PartRecord(eps=key[0], start=key[1], stop=key[2], digest=part.digest(), seconds=seconds, points=points)


def _check(analysis: Analysis, points: Sequence[Measurement], samples: int) -> None:
    """Raise ValueError if a measurement of an analysis does not fit the samples, before it is written."""
    for point in points:
        if not isinstance(point, Measurement):
            raise ValueError(
                f"the analysis {analysis.name!r} measured a {type(point).__name__}: `measure` must return a list of "
                f"`measurement(...)`"
            )
        for name, values in point.values.items():
            if isinstance(values, Sequence) and len(values) != samples:
                raise ValueError(
                    f"the analysis {analysis.name!r} measured {len(values)} numbers {name!r} of {samples} samples: "
                    f"`measure` must give one number for each sample, or a single number"
                )


def analyses() -> dict[str, type[Analysis]]:
    """Return all analyses by name: those of this package, and all other subclasses of `Analysis` defined so far."""
    return members(Analysis)


def analysis(name: str) -> Analysis:
    """The analysis of this name, with its defaults.

    Raises:
        ValueError: there is no such analysis.
    """
    kinds = analyses()
    if name not in kinds:
        raise ValueError(f"no analysis is called {name!r}; there are {', '.join(kinds)}")
    return kinds[name]()


def measurement(values: Mapping[str, Tensor | float], x: float | None = None) -> Measurement:
    """Quantities from [B] tensors (a number for each sample; NaN for none) or single numbers, at a place on an axis."""
    return Measurement({name: _plain(value) for name, value in values.items()}, x)


def _plain(value: Tensor | float) -> float | list[float | None]:
    if not isinstance(value, Tensor):
        return float(value)
    if not value.dim():
        return float(value)
    return [None if number != number else number for number in value.double().tolist()]


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The quantities of parts as those of all samples, [B] each."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
