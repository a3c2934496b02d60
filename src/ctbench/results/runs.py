"""The files of a run folder, and how to read them without torch.

recipe.json          the recipe
versions.json        of the library (with its git commit), torch and Python
metrics.jsonl        a record for each epoch
state.safetensors    weights and optimiser after the last complete epoch: a run resumes from here
weights.safetensors  the trained weights: the run is complete
network.onnx         of a module of your own: the trained network as a graph
run.lock             the lock of the process that trains here
certified/NAME.jsonl  records of a certification, NAME.json its settings, NAME.counterexamples/INDEX.npy points,
                     NAME.lock the lock of the process that writes them
radii/NAME.jsonl     trials of a search for radii up to the norm and radius that NAME describes, .json their settings
attacked/NAME-ATTACKS.jsonl  records of attacks at the norm and radius that NAME describes, .json their settings, and
                     .lock the lock of the process that attacks
analysed/NAME.jsonl  records of the analysis NAME, NAME.json its settings
unstable.jsonl       the share of unstable neurons after each epoch, in trainings for figures that show it
corrupted/SOURCE.jsonl  accuracies on corrupted test images, and .json their settings
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ctbench.files import write_whole
from ctbench.results import jsonl
from ctbench.results.analysed import AnalysisFiles
from ctbench.results.certification import Certification, SampleRecord
from ctbench.results.checking import EARLIER, check_settings, sealed
from ctbench.results.files import RecordFiles, differences
from ctbench.results.radii import RadiusFiles
from ctbench.results.stored import FileState, Stored, checked, latest

TOGETHER = {("sabr", "taps"): "staps"}  # a method, the one inside it, and what papers call both
SAMPLES = "samples"  # of settings: the range of samples that were to be certified, [start, stop]
EFFORT = ("stages", "timeout")  # the settings that another attempt at unknown samples may raise


@dataclass(frozen=True)
class CertificationFiles(RecordFiles):
    """The files of one certification: its settings and its records."""

    kind: ClassVar[str] = "a certification"

    @property
    def counterexamples(self) -> Path:
        """The folder of the counterexamples: INDEX.npy, in double precision."""
        return self.records.with_suffix(".counterexamples")

    def read(self) -> Certification:
        """All complete records, each checked; of a sample that an earlier attempt left unknown, the last one.

        Raises:
            ValueError: a line is not a record, a record contradicts itself or was edited, or a sample has two records
                of one attempt, or one after its verdict; the message names the file.
        """
        records = [record for _, record in self._lines()]
        return Certification(tuple(records[place] for place in latest(enumerate(records), self.records)[1]))

    def open(self) -> Certification:
        """The same, but the records stay in the file: each takes 16 bytes of memory, and is read when it is asked for.

        Raises:
            ValueError: as `read`.
        """
        return Certification(self._stored())

    def _stored(self) -> Stored:
        state = FileState.settled(self.records)  # before the first one is read
        return Stored(self.records, *latest(self._lines(), self.records), state=state)

    def _lines(self) -> Iterator[tuple[int, SampleRecord]]:
        """All records, also those that were replaced, each with its first byte."""
        for number, (offset, content) in enumerate(jsonl.lines(self.records), start=1):
            with jsonl.named(f"{self.records}, line {number}"):
                record = checked(content)
            yield offset, record

    @property
    def wanted(self) -> int | None:
        """The number of samples that were to be certified; None if the settings are from before they said it."""
        samples = self.read_settings().get(SAMPLES)
        return None if samples is None else samples[1] - samples[0]

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The stages and the time limit of each attempt, in order: `SampleRecord.attempt` is a place in this list."""
        settings = self.read_settings()
        return [*settings.get(EARLIER, ()), effort(settings)]

    def _check(self, settings: Mapping[str, Any]) -> None:
        check_settings(settings)

    def append(self, records: Sequence[SampleRecord], *, counterexamples: bool = False) -> list[int]:
        """Add records; returns where they begin in the file.

        With `counterexamples` their points are written first, so that no record lacks its point.
        """
        for record in records:
            if counterexamples and record.counterexample is not None:
                self.counterexamples.mkdir(exist_ok=True)
                content = io.BytesIO()
                np.save(content, record.counterexample)
                write_whole(self.counterexamples / f"{record.index}.npy", content.getvalue())
        return jsonl.append(self.records, map(_sealed, records))

    def start(self, settings: dict[str, Any], *, resume: bool) -> Stored:
        """Prepare the files for `append`; returns the existing records, which stay in the file.

        More thorough settings (`extends`) begin another attempt, at the samples that are unknown: they are written, and
        those of earlier attempts with them.

        Raises:
            ValueError: there are records and `resume` is off, or they were written under other settings.
        """
        if self._begin(settings):
            return self._stored()
        if not resume:
            raise ValueError(f"{self.records} exists already: resume it (--resume), or choose another place (--out)")
        before, now = self.read_settings(), json.loads(json.dumps(settings))
        earlier, samples = before.pop(EARLIER, None), joined([before.pop(SAMPLES, None), now.pop(SAMPLES, None)])
        different = differences(before, now)
        if different and not extends(before, now):
            raise ValueError(
                f"{self.records} was made under other settings ({different}): choose another place, or resume with "
                f"the same stages, or more, and no less time"
            )
        done = self._stored()
        attempts = [*(earlier or []), effort(before)] if different else earlier
        more = {name: value for name, value in ((SAMPLES, samples), (EARLIER, attempts)) if value is not None}
        jsonl.write_json(self.settings, sealed({**now, **more}))
        jsonl.mend(self.records)
        return done

    def merge(self, parts: Sequence[CertificationFiles]) -> Certification:
        """Write the records of other files, at least one, that were written under the same settings.

        Raises:
            FileNotFoundError: a part does not exist.
            ValueError: these files already exist, settings differ, or a sample has two records; or another process
                writes these files.
        """
        if self.records.exists() and self.settings.exists():
            raise ValueError(f"{self.records} exists already: merge into a new file")
        missing = next((each.records for each in parts if not each.records.is_file()), None)
        if missing is not None:
            raise FileNotFoundError(f"there is no file {missing}: check the path")
        settings = [each.read_settings() for each in parts]
        samples = joined([its.pop(SAMPLES, None) for its in settings])
        for each, its in zip(parts, settings, strict=True):
            different = differences(settings[0], its)
            if different:
                raise ValueError(f"{each.records} was made under other settings than {parts[0].records} ({different})")
        contents = [each.open() for each in parts]
        indices = np.concatenate([content.indices for content in contents])
        part = np.repeat(np.arange(len(parts)), [len(content) for content in contents])
        position = np.concatenate([np.arange(len(content)) for content in contents])
        order = np.argsort(indices, kind="stable")
        twice = np.flatnonzero(np.diff(indices[order]) == 0)
        if len(twice):
            first, second = (parts[part[order[at]]].records for at in (twice[0], twice[0] + 1))
            raise ValueError(
                f"sample {indices[order[twice[0]]]} has two records, in {first} and in {second}: merge parts that have "
                f"no sample in common"
            )
        merged = (contents[part[at]][position[at]] for at in order)
        with self.alone():
            self.start(settings[0] if samples is None else {**settings[0], SAMPLES: samples}, resume=False)
            jsonl.rewrite(self.records, map(_sealed, merged))
        return self.open()


def method_name(method: Mapping[str, Any]) -> str:
    """The name of the method in the content of recipe.json, or what papers call it with the one inside: "staps"."""
    name, inner = str(method.get("name", "-")), method.get("inner")
    return TOGETHER.get((name, str(inner.get("name"))), name) if isinstance(inner, Mapping) else name


def region_name(norm: str, eps: float) -> str:
    """The name of the records for a norm and a radius, e.g. "linf-0.1"."""
    return f"{norm}-{eps:.10g}"


def names_of(paths: Sequence[Path], name: Callable[[Path], str] = lambda path: path.name) -> list[str]:
    """A short name for each path, by default its last part; the whole paths if two different ones have one name."""
    short = [name(path.absolute()) for path in paths]
    alike = len(set(short)) < len({path.absolute() for path in paths})
    return [str(path) for path in paths] if alike else short


def joined(ranges: Sequence[list[int] | None]) -> list[int] | None:
    """The range from the first to the last sample of some ranges [start, stop]; None if there is no range."""
    ends = [ends for ends in ranges if ends is not None]
    return [min(start for start, _ in ends), max(stop for _, stop in ends)] if ends else None


def effort(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What settings say of the effort of an attempt: its stages, and the seconds for each sample."""
    return {name: settings.get(name) for name in EFFORT}


def extends(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether settings differ from earlier ones only by more effort.

    All earlier stages are there, in the same order, and a sample has no less time. Whatever else decides what a record
    means is the same: the network, the threat model, the precision, the rounding, the replay and the seed.
    """
    same = all(before.get(name) == now.get(name) for name in (before.keys() | now.keys()) - set(EFFORT))
    if not same or any(name not in settings for settings in (before, now) for name in EFFORT):
        return False
    stages = iter(now["stages"])
    limits = [math.inf if settings["timeout"] is None else settings["timeout"] for settings in (before, now)]
    return all(stage in stages for stage in before["stages"]) and limits[0] <= limits[1]


def _sealed(record: SampleRecord) -> dict[str, Any]:
    return sealed(record.to_json())


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def exported(self) -> Path:
        return self.path / "network.onnx"

    @property
    def unstable(self) -> Path:
        return self.path / "unstable.jsonl"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    def certification(self, name: str) -> CertificationFiles:
        """The files of a certification; the name of a norm and a radius is `region_name`."""
        return CertificationFiles(self.path / "certified" / f"{name}.jsonl")

    def certifications(self) -> list[CertificationFiles]:
        """All certifications, sorted by name."""
        return [CertificationFiles(path) for path in sorted((self.path / "certified").glob("*.jsonl"))]

    def radii(self, name: str) -> RadiusFiles:
        """The files of a search for radii up to the norm and radius that the name describes."""
        return RadiusFiles(self.path / "radii" / f"{name}.jsonl")

    def searches(self) -> list[RadiusFiles]:
        """All searches for radii, sorted by name."""
        return [RadiusFiles(path) for path in sorted((self.path / "radii").glob("*.jsonl"))]

    def attacked(self, name: str, attacks: str) -> Path:
        """The file of the records of attacks."""
        return self.path / "attacked" / f"{name}-{attacks}.jsonl"

    def corrupted(self, source: str) -> Path:
        """The file of the records of corrupted test images."""
        return self.path / "corrupted" / f"{source}.jsonl"

    def corruptions(self) -> list[Path]:
        """All records of corrupted test images, sorted by name."""
        return sorted((self.path / "corrupted").glob("*.jsonl"))

    def attacks(self) -> list[Path]:
        """The settings of all records of attacks, sorted by name."""
        return sorted((self.path / "attacked").glob("*.json"))

    def analysis(self, name: str) -> AnalysisFiles:
        return AnalysisFiles(self.path / "analysed" / f"{name}.jsonl")

    def analyses(self) -> list[AnalysisFiles]:
        """All analyses, sorted by name."""
        return [AnalysisFiles(path) for path in sorted((self.path / "analysed").glob("*.jsonl"))]

    def require(self) -> None:
        """Raise an error unless this is the folder of a run."""
        if self.path.is_file():
            inside = self.path.parent.name in ("certified", "radii", "attacked", "analysed")
            folder = self.path.parents[1] if inside else "the folder that ctbench train made"
            raise FileNotFoundError(f"{self.path} is a file, but a run folder is expected: give {folder}")
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}: check the path")
        if not self.recipe.is_file():
            recipes = [*self.path.glob(f"final/*/{self.recipe.name}"), *self.path.glob(f"*/{self.recipe.name}")]
            runs_inside = sorted(path.parent for path in recipes)
            runs = f"the runs in it, e.g. {runs_inside[0]}" if runs_inside else "the folder that ctbench train made"
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no {self.recipe.name}; give {runs}")
