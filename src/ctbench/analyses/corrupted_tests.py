"""The accuracies of a run on corrupted test images, with records in its folder: the analysis "generalisation".

    CorruptedTests(severities=(1, 5))(load_run("runs/mine"), samples=1000).mean()

`generalisation` has the formula and its source, and takes any module and any images. Here the images are those of the
run's data set, and what has a record is not computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from ctbench import zoo
from ctbench.analyses.generalisation import CorruptedSet, accuracies, our_sets, published_sets
from ctbench.corruptions import SEVERITIES
from ctbench.datasets import Augmentation, Data, Images
from ctbench.datasets.published_corruptions import BySeverity, published_kind, published_kinds
from ctbench.results import Generalisation, Layout, RunFolder, append_corruptions, jsonl, locks, read_corruptions
from ctbench.results.generalisation import CLEAN
from ctbench.training import Run

OURS = "ours"


def _nothing() -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class CorruptedTests:
    """The accuracy of runs on corrupted test images, over their clean accuracy.

    Args:
        source: "ours", our corruptions of the run's test images; or published images: "mnist-c", "cifar10-c" or
            "tinyimagenet-c".
        kinds: the corruptions; by default all of the source.
        severities: from 1 to 5; MNIST-C has one alone: leave them out.
        seed: of our corruptions.

    Raises:
        ValueError: there is no such source or severity, or a corruption or severity is named twice.
    """

    name: ClassVar[str] = "generalisation"
    layout: ClassVar[Layout] = Layout(
        kind="bars", quantities=("mean",), label="accuracy on corrupted images / clean accuracy", x_label="severity"
    )
    source: str = OURS
    kinds: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0

    def __post_init__(self) -> None:
        has_severities = self.source == OURS or issubclass(published_kind(self.source), BySeverity)
        if not has_severities and self.severities != SEVERITIES:
            raise ValueError(f"severities are {self.severities}, but {self.source} has one alone: leave them out")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise ValueError(f"severities are {self.severities}: give whole numbers from 1 to 5")
        for name, values in (("kinds", self.kinds), ("severities", self.severities)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} are {','.join(map(str, values))}: name each once")

    def __call__(
        self,
        run: Run,
        *,
        root: Path | None = None,
        samples: int | None = None,
        device: torch.device | str = "cpu",
        place: RunFolder | None = None,
        begin: Callable[[], None] = _nothing,
    ) -> Generalisation:
        """The accuracies of a run.

        Args:
            run: the run.
            root: the folder of the data sets, as for `Dataset.load`; data that the run was given are in memory.
            samples: the number of images of each test set; None: all.
            device: where to compute.
            place: the run folder of the records; None is that of the run, or a copy in runs/zoo of a network of the
                zoo.
            begin: called before something is computed.

        Raises:
            FileNotFoundError: published images are not there.
            ValueError: the data set has no images, or the source corrupts those of another data set or of another
                shape; or there are records under other settings, e.g. of other weights; or another process writes
                there.
        """
        clean = self._clean(run, root, samples)
        sets = list(self.sets(clean, run.recipe.dataset.augmentation, root=root, samples=samples))
        place = place or RunFolder(zoo.working_copy(run.folder.path))
        path = place.corrupted(self.source if samples is None else f"{self.source}-{samples}")
        wanted = [(CLEAN, None), *(one.key for one in sets)]
        if self.source != OURS and not read_corruptions(path).keys() >= set(wanted):
            published_kind(self.source).located(root)  # nothing is written if there are no images
        with locks.alone(path.with_suffix(".lock"), path):
            _start(path, self._settings(run, samples))
            done = read_corruptions(path)
            if any(key not in done for key in wanted):
                begin()
            for record in accuracies(run.model.to(device), clean, sets, done=done.keys()):
                append_corruptions(path, [record])
                done[record.key] = record
        return Generalisation(tuple(done[key] for key in wanted))

    def sets(
        self, clean: Images, augmentation: Augmentation, *, root: Path | None = None, samples: int | None = None
    ) -> Iterator[CorruptedSet]:
        """The corrupted test sets; arguments as for `our_sets` and `published_sets`."""
        if self.source == OURS:
            return our_sets(clean, self.kinds, self.severities, seed=self.seed)
        return published_sets(
            self.source, self.kinds, self.severities, root=root, augmentation=augmentation, samples=samples
        )

    def _clean(self, run: Run, root: Path | None, samples: int | None) -> Images:
        """The clean test images of a run."""
        name = run.recipe.dataset.name
        published = {kind.clean.name: source for source, kind in published_kinds().items()}
        if self.source != OURS and published.get(name, self.source) != self.source:
            raise ValueError(
                f"{run.folder.path} was trained on {name}, and {self.source} corrupts the images of another data set: "
                f"take {published[name]}"
            )
        own_data = isinstance(run.source, Data)
        clean = (run.load_data() if root is None or own_data else run.recipe.dataset.load(root)).test
        if not isinstance(clean, Images):
            raise ValueError(
                f"{run.folder.path} was trained on {name}, which holds no images: corruptions are those of images, "
                f"name another run"
            )
        return clean.subset(slice(samples))

    def _settings(self, run: Run, samples: int | None) -> dict[str, Any]:
        return {
            "dataset": run.recipe.dataset.title,
            "source": self.source,
            "seed": self.seed if self.source == OURS else None,
            "samples": samples,
            "weights": hashlib.sha256(run.folder.weights.read_bytes()).hexdigest(),
        }


def _start(records: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those that are there."""
    place = records.with_suffix(".json")
    if not place.exists():
        jsonl.write_json(place, settings)
    elif (before := jsonl.read_json(place)) != settings:
        different = ", ".join(name for name in settings if before.get(name) != settings[name])
        raise ValueError(f"{records} has records under other settings ({different}): move it away, and {place.name}")
    # a record truncated by a kill must not be joined with the next record
    jsonl.rewrite(records, jsonl.read(records))
