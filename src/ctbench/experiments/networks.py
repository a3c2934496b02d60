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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctbench import zoo
from ctbench.analyses import Analysis, NetworkOnInputs
from ctbench.analyses.corrupted_tests import OURS, CorruptedTests
from ctbench.attacks import adversarial_accuracy
from ctbench.datasets.published_corruptions import published_kind
from ctbench.engine import Engine, Here
from ctbench.experiments.following import Following
from ctbench.experiments.scales import LARGE_RADII, SMALL_RADII, NetworkScale
from ctbench.experiments.setting import ORIGINAL
from ctbench.graph import Precisions
from ctbench.regions import RandomSegments
from ctbench.report import rows
from ctbench.results import (
    AnalysisFiles,
    Attacked,
    Certification,
    CertificationFiles,
    Generalisation,
    Measurements,
    RunFolder,
    jsonl,
    read_attacked,
)
from ctbench.results.runs import region_name
from ctbench.training import Recipe, Run, codec, load_run, train
from ctbench.verify import Records, certify, stages_by_name

UNCERTIFIED = ("standard", "pgd", "edac")  # methods whose networks complete verifiers seldom prove robust
TITLES = {  # the methods of recipes, as papers call them
    "standard": "Standard",
    "pgd": "PGD",
    "edac": "EDAC",
    "line_search": "AT",
    "coap": "COAP",
    "ibp": "IBP",
    "fast_ibp": "FAST-IBP",
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


def _shown_corruptions(source: str) -> tuple[str, ...]:
    """The corruptions in figures; none for all of the source. CTBench leaves out snow of CIFAR-10-C (Figure 9)."""
    if source == OURS or "snow" not in published_kind(source).kinds:
        return ()
    return tuple(name for name in published_kind(source).kinds if name != "snow")


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
        return self.scale.settings[network.setting].recipe(network.method, network.changes)

    def labels(self, network: NetworkOf) -> dict[str, Value]:
        """The first columns of its rows."""
        method = TITLES[network.method.removesuffix(ORIGINAL)]
        labels: dict[str, Value] = {"setting": self.scale.settings[network.setting].label}
        if network.setting in (*SMALL_RADII, *LARGE_RADII):
            labels["radius"] = "small" if network.setting in SMALL_RADII else "large"
        return {**labels, "method": method, **network.about}

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
        following = self._following(network)
        if following:
            following.catch_up()
        return train(recipe, out=out, resume=True, data=self.data, device=self.device, quiet=True, on_epoch=following)

    def _following(self, network: NetworkOf) -> Following | None:
        """What counts the unstable neurons of its training, where figures show them: in COAP's."""
        if network.method != "coap" or not self.scale.settings[network.setting].followed:
            return None
        recipe = self.recipe(network)
        folder = RunFolder(self.folder / f"{recipe.name}-{recipe.hash}")
        return Following(recipe, folder, self.scale.watched, self.data)

    def unstable(self, network: NetworkOf) -> list[float]:
        """The share of unstable neurons after each epoch of its training; empty if it is not followed."""
        self.run(network)
        following = self._following(network)
        return following.shares() if following else []

    def attacked(self, network: NetworkOf) -> Attacked:
        """What attacks leave of the accuracy on the first test images.

        The images are those of a certification. Balls are cut with the data range, for all methods alike, as
        AutoAttack does; on segments, which are not, a line search takes the place of the attacks.
        """
        run, threat = self.run(network), self.recipe(network).threat
        on_segments = isinstance(threat, RandomSegments)
        attacks = ("line-search",) if on_segments else self.scale.attacks
        threat = threat if on_segments else replace(threat, clip=(0.0, 1.0))
        x, y = self.images(run, self.scale.certified)
        path = run.folder.attacked(f"{region_name(threat.name, threat.eps)}-first-{len(x)}", "+".join(attacks))
        settings = {
            "network_digest": Precisions.of(run.model, x[:1]).proof.digest(),
            "dataset": run.recipe.dataset.title,
            "threat": repr(threat),
            "attacks": list(attacks),
        }
        done = read_attacked(path)
        if done is None or jsonl.read_json(path.with_suffix(".json")) != settings:
            self._begin(f"attack {run.recipe.name}", network)
            evaluation = adversarial_accuracy(run.model, x, y, threat, attacks=attacks)
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)  # after a kill, the next settings must not describe the records of others
            jsonl.write_json(path.with_suffix(".json"), settings)
            jsonl.rewrite(path, evaluation.records(range(len(x))))
            done = read_attacked(path)
        assert done is not None, "an evaluation has at least one sample"
        return done

    def training_seconds(self, network: NetworkOf) -> float:
        """The seconds of its training, all epochs together."""
        (row,) = rows([self.run(network).folder.path])[:1]
        return row.training_seconds or 0.0

    def images(self, run: Run, samples: int | None) -> tuple[Tensor, Tensor]:
        """The first test images, [N, *shape], and their labels, [N]; all if `samples` is None."""
        return run.recipe.dataset.load(self.data).test[:samples]

    def certification(self, network: NetworkOf, stages: str | None = None, *, few: bool = False) -> Certification:
        """The certification of the first test images at the radius of its setting.

        Args:
            network: the network.
            stages: the cascade; None is that of the scale, or the fast one for methods without proofs.
            few: whether to certify `scale.few` images, where most of them take the whole time limit.
        """
        files = self.certification_files(network, stages, few=few)
        return files.read().only(np.arange(len(self.images(self.run(network), self._certified(few))[1])))

    def certification_files(
        self, network: NetworkOf, stages: str | None = None, *, few: bool = False
    ) -> CertificationFiles:
        """The same, as files; they may have records of more images."""
        run = self.run(network)
        stages = stages or ("fast" if network.method in UNCERTIFIED else self.scale.stages)
        x, y = self.images(run, self._certified(few))
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

    def _certified(self, few: bool) -> int | None:
        return self.scale.few if few else self.scale.certified

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
            asked = replace(asked, method=run.recipe.final_method)  # type: ignore[call-arg]
        threat = replace(run.recipe.threat, eps=run.recipe.threat.eps if eps is None else eps)
        x, y = self.images(run, samples)
        pair = NetworkOnInputs.of(run.model, x, y)
        settings = {
            "analysis": asked.name,
            "options": codec.encode(asked),
            "dataset": run.recipe.dataset.name,
            "norm": threat.name,
            "threat": repr(replace(threat, eps=0.0)),
            "network_digest": pair.precisions.proof.digest(),
            "precision": str(pair.precisions.like.dtype),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        files: AnalysisFiles = run.folder.analysis(f"{asked.name}-{digest}")
        keys = asked.keys(pair, threat)
        with files.alone():
            done = {record.key: record for record in files.start(settings).records}
            if any(key not in done for key in keys):
                self._begin(f"{asked.name} of {run.recipe.name}", network)
            for record in asked.records(pair, [threat], done, engine=self.engine):
                files.append(record)
        return files.read().only(keys)

    def generalisation(self, network: NetworkOf) -> Generalisation:
        """Its accuracies on corrupted test images: ours, or the published ones, as the scale says.

        Raises:
            ValueError: the data set has no images, or no published corruptions.
        """
        run = self.run(network)
        source = OURS if self.scale.corruptions == OURS else f"{run.recipe.dataset.name}-c"
        return CorruptedTests(source=source, kinds=_shown_corruptions(source))(
            run,
            root=self.data,
            samples=self.scale.samples,
            device=self.device,
            begin=lambda: self._begin(f"corruptions of {run.recipe.name}", network),
        )

    def _begin(self, what: str, network: NetworkOf) -> None:
        """Announce what begins. Raises NotInTimeError after the deadline."""
        about = ", ".join(
            f"{name} {value}" for name, value in self.labels(network).items() if name not in ("method", "radius")
        )
        if time.perf_counter() > self.deadline:
            raise NotInTimeError(f"the time was over before: {what} ({about})")
        self.tell(f"{what} ({about})")
