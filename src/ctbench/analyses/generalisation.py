"""Does the network generalise to corrupted images? Its accuracy on them, over its clean accuracy.

    ratio(c) = acc(c) / acc(clean)

CTBench, section 5.5 and Figures 6 and 9, on MNIST-C (Mu & Gilmer 2019) and CIFAR-10-C (Hendrycks & Dietterich 2019).
The corruptions of `ctbench.corruptions` are ours: they have the names of MNIST-C, but other images.

    test = MNIST().load().test
    result = generalisation(model, test, our_sets(test))
    result.ratio("fog"), result.ratio("fog", severity=5), result.mean()
    generalisation(model, test, published_sets("mnist-c"))

`corrupted_tests` tests runs on corrupted images of their data sets, and keeps the records.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ctbench.corruptions import SEVERITIES, corruption, corruptions
from ctbench.datasets import Augmentation, Images, PublishedCorruption, corrupt, published_corruption
from ctbench.datasets.published_corruptions import BySeverity, published_kind
from ctbench.graph import precision
from ctbench.precision import full_float32
from ctbench.results.generalisation import CLEAN, CorruptionRecord, Generalisation

IDENTITY = "identity"  # the clean images of MNIST-C
BATCH = 500


@dataclass(frozen=True, eq=False)
class CorruptedSet:
    """A corrupted test set, which is made or read when it is needed."""

    corruption: str
    severity: int | None
    images: Callable[[], Images]

    @property
    def key(self) -> tuple[str, int | None]:
        return self.corruption, self.severity


def our_sets(
    clean: Images, names: Collection[str] = (), severities: Iterable[int] = SEVERITIES, *, seed: int = 0
) -> Iterator[CorruptedSet]:
    """Clean test images under corruptions of our own; each set is made when its images are asked for.

    Args:
        clean: the images.
        names: the corruptions; by default all of `ctbench.corruptions`.
        severities: from 1 to 5.
        seed: of the random numbers.

    Raises:
        ValueError: there is no such corruption or severity.
    """
    for name in names or corruptions():
        for severity in severities:
            yield CorruptedSet(name, severity, partial(corrupt, clean, corruption(name, severity), seed=seed))


def published_sets(
    source: str,
    names: Collection[str] = (),
    severities: Iterable[int] = SEVERITIES,
    *,
    root: Path | None = None,
    augmentation: Augmentation | None = None,
    samples: int | None = None,
) -> Iterator[CorruptedSet]:
    """Published corrupted test images.

    Args:
        source: "mnist-c", "cifar10-c" or "tinyimagenet-c".
        names: the corruptions; by default all of the source, except clean images.
        severities: from 1 to 5; MNIST-C has none.
        root: the folder with the files, as for `Dataset.load`.
        augmentation: that of the training data, whose crop test images have; by default that of the data set.
        samples: only the first images of each severity; by default all.

    Raises:
        ValueError: there is no such source, corruption or severity.
    """
    kind = published_kind(source)

    def images(dataset: PublishedCorruption) -> Images:
        test = dataset.test(root)
        return test if samples is None else test.subset(slice(samples))

    for name in names or [name for name in kind.kinds if name != IDENTITY]:
        for severity in severities if issubclass(kind, BySeverity) else (None,):
            dataset = published_corruption(source, name, severity=severity, augmentation=augmentation)
            yield CorruptedSet(name, severity, partial(images, dataset))


def generalisation(
    model: nn.Module, clean: Images, sets: Iterable[CorruptedSet], *, batch_size: int = BATCH
) -> Generalisation:
    """The accuracies of a network on clean and corrupted images.

    Args:
        model: any network; it is taken as at test time, and is not changed.
        clean: the clean test images.
        sets: the corrupted ones, e.g. `our_sets(clean)`.
        batch_size: the number of images at a time.

    Raises:
        ValueError: there is no corrupted test set, or its images have another shape than the clean ones.
    """
    return Generalisation(tuple(accuracies(model, clean, sets, batch_size=batch_size)))


def accuracies(
    model: nn.Module,
    clean: Images,
    sets: Iterable[CorruptedSet],
    *,
    done: Collection[tuple[str, int | None]] = (),
    batch_size: int = BATCH,
) -> Iterator[CorruptionRecord]:
    """The records of `generalisation`, one by one, except those whose corruption and severity are done."""
    model, shape = copy.deepcopy(model).eval(), list(clean.inputs.shape[1:])
    for one in (CorruptedSet(CLEAN, None, lambda: clean), *sets):
        if one.key not in done:
            images = one.images()
            if list(images.inputs.shape[1:]) != shape:
                raise ValueError(
                    f"the images of {one.corruption} have shape {list(images.inputs.shape[1:])}, and the clean ones "
                    f"{shape}: give corrupted images of the same data set"
                )
            right = count_right(model, images, batch_size)
            yield CorruptionRecord(corruption=one.corruption, severity=one.severity, right=right, samples=len(images))


@full_float32
@torch.no_grad()
def count_right(model: nn.Module, images: Images, batch_size: int = BATCH) -> int:
    """The number of images that a network in the mode that it has classifies correctly."""
    like = precision(model, images[:1][0])
    right = 0
    for start in range(0, len(images), batch_size):
        x, y = images.batch(slice(start, start + batch_size), like.device)
        right += int((model(x.to(like.dtype)).argmax(1) == y).sum())
    return right
