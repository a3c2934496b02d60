"""Data sets with corrupted test images, by corruptions of our own (ctbench.corruptions).

    corrupted(MNIST(), "fog", severity=3).load()

Training images stay clean: networks are trained without corruptions and tested with them. This is not MNIST-C, whose
images `ctbench.datasets.MNISTC` reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from ctbench.corruptions import Corruption, corruption
from ctbench.datasets.base import Data, Dataset, Examples, Images
from ctbench.datasets.derived import Derived


@dataclass(frozen=True, kw_only=True)
class Corrupted(Derived):
    """A data set of images whose test images are corrupted; training images and their augmentation are its own.

    Args:
        base: the data set.
        corruption: the corruption, e.g. `Fog(severity=3)`.
        seed: of the random numbers of the corruption.

    Raises:
        ValueError: an augmentation other than that of the base is given.
    """

    name: ClassVar[str] = "corrupted"
    corruption: Corruption
    seed: int = 0

    @property
    def title(self) -> str:
        return f"{self.base.title}+{self.corruption.name}-{self.corruption.severity}"

    def load(self, root: Path | None = None) -> Data:
        """Load the base, and corrupt its test images after the crop.

        Raises:
            ValueError: the base does not hold images, or see there.
            FileNotFoundError: see there.
        """
        data = self.base.load(root)
        return replace(data, test=corrupt(data.test, self.corruption, seed=self.seed))


def corrupted(base: Dataset, name: str, *, severity: int = 3, seed: int = 0) -> Corrupted:
    """A data set with corrupted test images.

    Args:
        base: the data set, of images.
        name: of the corruption, see `ctbench.corruptions.corruptions()`.
        severity: from 1 to 5.
        seed: of the random numbers.

    Raises:
        ValueError: there is no such corruption, or the severity is out of range.
    """
    return Corrupted(base=base, corruption=corruption(name, severity), seed=seed)


def corrupt(examples: Examples, how: Corruption, *, seed: int = 0) -> Images:
    """Corrupted images with their labels, in the stored type of the examples: bytes stay bytes.

    Raises:
        ValueError: the examples are not images.
    """
    if not isinstance(examples, Images):
        raise ValueError(f"the examples are {type(examples).__name__}, not images: give a data set of images")
    stored = examples.inputs
    x = stored if stored.is_floating_point() else stored.float() / 255
    changed = how(x, seed=seed)
    return replace(examples, inputs=changed if stored.is_floating_point() else (255 * changed).round().to(torch.uint8))
