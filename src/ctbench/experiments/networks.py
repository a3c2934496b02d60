"""The trained networks that figures share: trained once, then certified, attacked and analysed, all on disk.

    networks = Networks(scale=TINY_NETWORKS, folder=Path("runs/reproduce/networks/tiny"))
    networks.certification(NetworkOf("mnist_01", "sabr")).certified_accuracy
    networks.analysis(NetworkOf("mnist_01", "sabr"), Fragmentation(), eps=0.1).mean("sampled")

Each network has a run folder, named by its recipe, in which all records are. What is there is not computed again, and
what was interrupted continues.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from ctbench import zoo
from ctbench.analyses import Analysis, Study
from ctbench.analyses.generalisation import CorruptedSet, accuracies, our_sets, published_sets
from ctbench.datasets import Images
from ctbench.engine import Engine, Here
from ctbench.experiments.scales import ORIGINAL, SMALL_RADII, NetworkScale
from ctbench.report import rows
from ctbench.results import (
    AnalysisFiles,
    Certification,
    CertificationFiles,
    Generalisation,
    Measurements,
    append_corruptions,
    jsonl,
    read_corruptions,
)
from ctbench.training import Recipe, Run, codec, load_run, train
from ctbench.verify import Records, certify, stages_by_name

UNCERTIFIED = ("standard", "pgd", "edac")  # methods whose networks complete verifiers seldom prove robust
TITLES = {  # the methods of recipes, as papers call them
    "standard": "Standard",
    "pgd": "PGD",
    "edac": "EDAC",
    "ibp": "IBP",
    "crown_ibp": "CROWN-IBP",
    "sabr": "SABR",
    "taps": "TAPS",
    "staps": "STAPS",
    "mtl_ibp": "MTL-IBP",
}
Value = str | float | None
Tell = Callable[[str], None]


class NotInTimeError(ValueError):
    """The time of the command was over before a network was trained, certified or analysed."""


def _silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class NetworkOf:
    """A network of a figure: a method in a setting of the paper.

    Args:
        setting: a data set and a radius of the papers, e.g. "mnist_01".
        method: the method, as in the names of recipes, e.g. "crown_ibp".
        changes: changes of the recipe, "path=value" each.
        about: more columns of its rows, e.g. {"lambda": 0.4}.
    """

    setting: str
    method: str
    changes: tuple[str, ...] = field(default=(), kw_only=True)
    about: Mapping[str, Value] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks at a scale.

    Args:
        scale: their size.
        folder: the folder of the run folders.
        data: the folder of the data sets; None is the variable CTBENCH_DATA, or else the user's cache.
        device: where to compute.
        engine: where samples are certified and analysed; by default in this process.
        deadline: the time (`time.perf_counter`) after which nothing new begins.
        tell: called with what begins.
    """

    scale: NetworkScale
    folder: Path
    data: Path | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    engine: Engine = Here()  # noqa: RUF009
    deadline: float = math.inf
    tell: Tell = _silent

    def recipe(self, network: NetworkOf) -> Recipe:
        """The recipe of a network at this scale."""
        return self.scale.settings[network.setting].recipe(network.method).with_changes(list(network.changes))

    def labels(self, network: NetworkOf) -> dict[str, Value]:
        """The first columns of its rows."""
        method = TITLES[network.method.removesuffix(ORIGINAL)]
        radius = "small" if network.setting in SMALL_RADII else "large"
        return {
            "setting": self.scale.settings[network.setting].label,
            "radius": radius,
            "method": method,
            **network.about,
        }

    def eps(self, network: NetworkOf) -> float:
        """The radius of its setting, in [0, 1] pixel space."""
        return float(self.recipe(network).threat.eps)

    def run(self, network: NetworkOf) -> Run:
        """The trained network; that of `ctbench.zoo` if it has the same recipe."""
        recipe = self.recipe(network)
        if recipe.name in zoo.names() and Recipe.read(zoo.HERE / recipe.name / "recipe.json").hash == recipe.hash:
            return load_run(zoo.working_copy(f"{zoo.PREFIX}{recipe.name}", self.folder), device=self.device)
        out = self.folder / f"{recipe.name}-{recipe.hash}"
        if not (out / "weights.safetensors").exists():
            self._begin(f"train {recipe.name}", network)
        return train(recipe, out=out, resume=True, data=self.data, device=self.device, quiet=True)

    def training_seconds(self, network: NetworkOf) -> float:
        """The seconds of its training, all epochs together."""
        (row,) = rows([self.run(network).folder.path])[:1]
        return row.training_seconds or 0.0

    def images(self, run: Run, samples: int | None) -> tuple[Tensor, Tensor]:
        """The first test images, [N, *shape], and their labels, [N]; all if `samples` is None."""
        return run.recipe.dataset.load(self.data).test[:samples]

    def certification(self, network: NetworkOf, stages: str | None = None) -> Certification:
        """The certification of the first test images at the radius of its setting.

        Args:
            network: the network.
            stages: the cascade; None is that of the scale, or the fast one for methods without proofs.
        """
        return self.certification_files(network, stages).read()

    def certification_files(self, network: NetworkOf, stages: str | None = None) -> CertificationFiles:
        """The same, as files."""
        run = self.run(network)
        stages = stages or ("fast" if network.method in UNCERTIFIED else self.scale.stages)
        x, y = self.images(run, self.scale.certified)
        files = run.folder.certification(f"{run.recipe.threat.name}-{run.recipe.threat.eps:.10g}-{stages}")
        if len(files.read()) < len(x):
            self._begin(f"certify {run.recipe.name}, {stages}", network)
        certify(
            run.model,
            x,
            y,
            run.recipe.threat,
            stages=stages_by_name(stages),
            timeout=self.scale.timeout,
            engine=self.engine,
            total=None if math.isinf(self.deadline) else max(1.0, self.deadline - time.perf_counter()),
            records=Records(
                files.records,
                resume=files.records.exists(),
                about={"dataset": run.recipe.dataset.name, "network": run.recipe.network.name},
            ),
        )
        if len(files.read()) < len(x):
            raise NotInTimeError(f"the certification of {run.recipe.name} is not complete")
        return files

    def analysis(
        self, network: NetworkOf, asked: Analysis, *, eps: float | None = None, samples: int | None = None
    ) -> Measurements:
        """What an analysis measures on the first test images.

        Args:
            network: the network.
            asked: the analysis; where its method is None, the method of the network.
            eps: the radius; None is that of its setting.
            samples: the number of images; None is that of the scale.
        """
        run, samples = self.run(network), self.scale.samples if samples is None else samples
        if any(part.name == "method" and getattr(asked, "method") is None for part in fields(asked)):  # noqa: B009
            asked = replace(asked, method=run.recipe.method)  # type: ignore[call-arg]
        threat = replace(run.recipe.threat, eps=run.recipe.threat.eps if eps is None else eps)
        x, y = self.images(run, samples)
        study = Study.of(run.model, x, y)
        settings = {
            "analysis": asked.name,
            "options": codec.encode(asked),
            "dataset": run.recipe.dataset.name,
            "norm": threat.name,
            "threat": repr(replace(threat, eps=0.0)),
            "network_digest": study.precisions.proof.digest(),
            "precision": str(study.precisions.like.dtype),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        files: AnalysisFiles = run.folder.analysis(f"{asked.name}-{digest}")
        keys = asked.keys(study, threat)
        with files.alone():
            done = {record.key: record for record in files.start(settings).records}
            if any(key not in done for key in keys):
                self._begin(f"{asked.name} of {run.recipe.name}", network)
            for record in asked.records(study, [threat], done, engine=self.engine):
                files.append(record)
        return files.read().only(keys)

    def generalisation(self, network: NetworkOf) -> Generalisation:
        """Its accuracies on corrupted test images: ours, or the published ones, as the scale says.

        Raises:
            ValueError: the data set has no images, or no published corruptions.
        """
        run = self.run(network)
        clean = run.recipe.dataset.load(self.data).test
        if not isinstance(clean, Images):
            raise ValueError(f"{run.recipe.dataset.name} holds no images: its corruptions are not defined")
        clean = clean.subset(slice(self.scale.samples))
        path = run.folder.corrupted(f"{self.scale.corruptions}-{len(clean)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        jsonl.rewrite(path, jsonl.read(path))  # without a line that was truncated by a kill
        sets, done = list(self._corrupted(run, clean)), read_corruptions(path)
        wanted = [("clean", None), *(one.key for one in sets)]
        if any(key not in done for key in wanted):
            self._begin(f"corruptions of {run.recipe.name}", network)
        for record in accuracies(run.model, clean, sets, done=done.keys()):
            append_corruptions(path, [record])
            done[record.key] = record
        return Generalisation(tuple(done[key] for key in wanted))

    def _corrupted(self, run: Run, clean: Images) -> Iterator[CorruptedSet]:
        if self.scale.corruptions == "ours":
            return our_sets(clean)
        dataset = run.recipe.dataset
        return published_sets(
            f"{dataset.name}-c", root=self.data, augmentation=dataset.augmentation, samples=self.scale.samples
        )

    def _begin(self, what: str, network: NetworkOf) -> None:
        """Announce what begins. Raises NotInTimeError after the deadline."""
        about = ", ".join(
            f"{name} {value}" for name, value in self.labels(network).items() if name not in ("method", "radius")
        )
        if time.perf_counter() > self.deadline:
            raise NotInTimeError(f"the time was over before: {what} ({about})")
        self.tell(f"{what} ({about})")
